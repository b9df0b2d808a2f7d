"""Where pictures and clips come from: `data_recipes/pools/`, one YAML of facts per media pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from omegaconf import MISSING

from instructblip.files import read_yaml

POOLS = Path(__file__).resolve().parent.parent / "data_recipes" / "pools"


class Access(Enum):
    open = "open"
    form = "form"
    click_through = "click_through"


@dataclass
class Download:
    """One address, how large it is (null: not published), and what a person must do there before it can be had."""

    url: str = MISSING
    megabytes: float | None = None
    files: list[str] = field(default_factory=list)  # that it holds; empty: all that no other names
    step: str | None = None  # a form, a registration, a licence to accept


@dataclass
class Pool:
    """A media pool; `layouts` are the names a file may have under the pool's folder, tried in order."""

    layouts: list[str] = field(default_factory=lambda: ["{relpath}"])
    downloads: list[Download] = field(default_factory=list)
    licence: str = "not stated"
    access: Access = Access.open


def load(name: str) -> Pool:
    """The facts of a pool; a pool without a file is a user's own folder. Raises ValueError naming the file."""
    path = POOLS / f"{name}.yaml"
    return read_yaml(path, Pool) if path.is_file() else Pool()
