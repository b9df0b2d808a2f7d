"""A recipe's manifest: what is in its tables, what was left out and why, from which files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructblip.files import read_json, sha256
from instructblip.recipes import Recipe

SHOWN = 5  # names in an error, uids per reason, bad pictures
LOST = "picture missing or broken"  # asked for again by the next run
Manifest = dict[str, Any]


class Dropped:
    """Rows that are no Samples: how many for each reason, and the first of them."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.first: dict[str, list[str]] = {}

    def add(self, reason: str, uids: Sequence[str], count: int = 1) -> None:
        self.count[reason] += count
        self.first[reason] = [*self.first.get(reason, []), *uids][:SHOWN]

    def facts(self) -> dict[str, Any]:
        return {reason: {"count": count, "first": self.first[reason]} for reason, count in self.count.items()}


def open_manifest(path: Path, recipe: Recipe, rebuild: bool) -> Manifest:
    """The manifest at `path`, or a new one. Raises ValueError when another version of the recipe wrote it."""
    fresh = {"recipe": recipe.table, "version": recipe.data_version(), "splits": {}}
    if not path.is_file():
        return fresh
    manifest: Manifest = read_json(path)
    if manifest["version"] != recipe.data_version():
        if rebuild:
            return fresh
        raise ValueError(
            f"{path.parent} was written by version {manifest['version']} of recipe {recipe.name}, this is version "
            f"{recipe.data_version()}: choose another paths.data, or replace it with rebuild=true"
        )
    return manifest


def table_facts(table: Path) -> dict[str, Any]:
    return {"bytes": table.stat().st_size, "sha256": sha256(table)}


def check_count(recipe: Recipe, split: str, rows: int) -> None:
    """Raises ValueError when a split has another number of Samples than is official."""
    official = recipe.split(split).rows
    if official is not None and rows != official:
        raise ValueError(
            f"{recipe.name}/{split} has {rows:,} rows where {official:,} are official: the download is not "
            f"complete or of another version; check_counts=false takes it as it is"
        )


def check_any(recipe: Recipe, split: str, rows: int, dropped: Dropped) -> None:
    """Raises ValueError when nothing is left of a split: its files are empty, or do not belong together."""
    if not rows:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in dropped.count.items()) or "none is there"
        raise ValueError(f"{recipe.name}/{split} has no row to prepare ({lost}): download its files again")


def check_bad_share(recipe: Recipe, bad: int, pictures: int, allowed: float, reasons: Sequence[str]) -> None:
    """Raises ValueError when more than the allowed share of the pictures could not be had."""
    if bad > allowed * pictures:
        first = "\n  ".join(reasons)
        raise ValueError(
            f"{recipe.name}: {bad:,} of {pictures:,} pictures are missing or broken (the others are "
            f"stored):\n  {first}\nfetch them again, or allow a share of them with max_bad_media=0.01"
        )


def summary(entry: dict[str, Any]) -> str:
    """One line for a person."""
    lost = ", ".join(f"{facts['count']:,} {reason}" for reason, facts in entry["dropped"].items())
    state = "written" if entry["fresh"] else "unchanged"
    official = entry["official_rows"]
    of = "rows" if official is None else f"of {official:,} official rows"
    return f"{entry['rows']:,} {of}, {state}" + (f" (left out: {lost})" if lost else "")
