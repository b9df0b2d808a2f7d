"""Looking a name up among the known ones, with the nearest as a hint when it is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(name: str, known: Mapping[str, T], what: str) -> T:
    """`known[name]`, or a ValueError that names the nearest and lists the rest."""
    require(name, known, what)
    return known[name]


def require(name: str, known: Iterable[str], what: str) -> None:
    """Raises ValueError unless `name` is one of `known`."""
    if name not in (choices := sorted(known)):
        raise ValueError(
            f"unknown {what} {name!r}{did_you_mean(name, choices)} (known: {', '.join(choices) or 'none'})"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no name is near. Last parts count too: `lr` is near `optim.lr`."""
    forms: dict[str, str] = {}
    for item in known:
        forms[item] = item
        forms.setdefault(_last_part(item), item)
    for form in (name, _last_part(name)):
        if near := difflib.get_close_matches(form, forms, n=1, cutoff=0.6):
            return f"; did you mean {forms[near[0]]!r}?"
    return ""


def _last_part(name: str) -> str:
    return name.replace("/", ".").rsplit(".", 1)[-1]
