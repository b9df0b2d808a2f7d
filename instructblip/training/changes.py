"""What of a config may differ between a run and its continuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instructblip.config.training import TrainConfig
from instructblip.recipes import plain

FREE = (
    "paths",
    "trainer",
    "logger",
    "resume",
    "allow_change",
    "dry_run",
    "plan",
    "name",
)  # how it is run, not what is learnt
BOUND = ("trainer.precision",)  # within them


def meaning(config: TrainConfig) -> dict[str, Any]:
    """Every key that decides what is learnt, `optim.lr`, with its value."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else key)
        elif path in BOUND or path.split(".")[0] not in FREE:
            flat[path] = value

    walk({key: plain(value) for key, value in vars(config).items()}, "")
    return flat


def changes(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Before and after of each key that differs."""
    before, after = meaning(old), meaning(new)
    keys = sorted(before.keys() | after.keys())
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def refused(changed: dict[str, tuple[Any, Any]], allowed: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Those not allowed, by their name or that of a group they are in."""
    return {
        key: values
        for key, values in changed.items()
        if not any(key == name or key.startswith(f"{name}.") for name in allowed)
    }
