"""The parts of a split made one: the table an undivided run writes, row for row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from instructblip.config.preparing import PrepareConfig
from instructblip.data.keys import KeySet, hashes
from instructblip.data.preparing.manifest import (
    LOST,
    SHOWN,
    Dropped,
    check_bad_share,
    check_count,
    open_manifest,
    table_facts,
)
from instructblip.data.preparing.parts import Part
from instructblip.data.tables import table_path, write_rows
from instructblip.files import lock, sha256, write_json
from instructblip.recipes import Recipe, fingerprint

FOLDER = re.compile(r"part-(\d+)-of-(\d+)")
TOGETHER = 1000  # rows copied at once
COMMAND = "python prepare.py -m recipe={} 'part={}' parts={}"


@dataclass(frozen=True)
class Written:
    """A part that is there."""

    part: Part
    table: Path
    entry: dict[str, Any]

    def numbers(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.fromfile(self.table.with_suffix(".rows"), dtype=np.int64)


def join(recipe: Recipe, split: str, config: PrepareConfig) -> dict[str, Any]:
    """Writes the table and manifest entry of a split from its parts; does nothing when that was done.

    Raises ValueError for parts that are missing, double, of another division or version of the recipe, or damaged,
    and for everything an undivided run refuses.
    """
    table = table_path(Path(config.paths.data), recipe.table, split)
    with lock(table.with_name(".lock"), f"recipe {recipe.name}"):
        path = table.with_name("manifest.json")
        manifest = open_manifest(path, recipe, config.rebuild)
        parts = _parts(recipe, split, config.parts, table.parent)
        joined = fingerprint([part.entry for part in parts])
        done = manifest["splits"].get(split)
        if done and done.get("joined") == joined and table.is_file():
            return {**done, "fresh": False}
        entry = _entry(recipe, split, config, parts)
        _refuse_doubles(parts)
        entry["rows"] = write_rows(table, _rows(parts))
        entry |= {"table": table_facts(table), "joined": joined}
        manifest["splits"][split] = entry
        write_json(path, manifest)
    return {**entry, "fresh": True}


def _parts(recipe: Recipe, split: str, of: int, folder: Path) -> list[Written]:
    """All parts in order, checked against each other and against their files."""
    found: dict[int, Written] = {}
    for path in sorted(folder.glob("part-*-of-*")):
        name = FOLDER.fullmatch(path.name)
        manifest = open_manifest(path / "manifest.json", recipe, rebuild=False)
        entry = manifest["splits"].get(split)
        if not name or not entry:
            continue
        if entry["part"][1] != of:
            raise ValueError(
                f"{path} is a part of {entry['part'][1]}, parts={of} are asked for: set parts, "
                f"or delete the folders of the other division"
            )
        number = entry["part"][0]
        if number in found or number != int(name[1]):
            other = f" as {found[number].table.parent.name}" if number in found else ""
            raise ValueError(f"{path} holds part {number}{other}: a part is there twice, delete the copy")
        found[number] = Written(Part(number, of), path / f"{split}.arrow", entry)
    if absent := [number for number in range(of) if number not in found]:
        listed = ",".join(map(str, absent))
        raise ValueError(
            f"{recipe.name}/{split}: parts {listed} of {of} are missing; {COMMAND.format(recipe.name, listed, of)}"
        )
    parts = [found[number] for number in range(of)]
    _check(recipe, split, parts)
    return parts


def _check(recipe: Recipe, split: str, parts: Sequence[Written]) -> None:
    """Raises ValueError for parts read from different files or with other frames, and for damaged tables."""
    sources: dict[str, str] = {}
    for part in parts:
        for name, digest in part.entry["sources"].items():
            if sources.setdefault(name, digest) != digest:
                raise ValueError(f"{part.table.parent} was read from another {name} than the parts before it")
        if not part.table.is_file() or sha256(part.table) != part.entry["table"]["sha256"]:
            raise ValueError(f"{part.table} is not the table its manifest tells of; prepare this part again")
        if len(part.numbers()) != part.entry["rows"]:
            raise ValueError(f"{part.table.with_suffix('.rows')} is cut short; prepare this part again")
    if len({part.entry["frames"] for part in parts} - {None}) > 1:
        raise ValueError(
            f"{recipe.name}/{split}: parts have different numbers of frames; prepare them with one frames="
        )


def _entry(recipe: Recipe, split: str, config: PrepareConfig, parts: Sequence[Written]) -> dict[str, Any]:
    """The parts' manifest entries added up, and the checks that only the whole allows."""
    entries = [part.entry for part in parts]
    dropped = Dropped()
    for entry in entries:
        for reason, facts in entry["dropped"].items():
            dropped.add(reason, facts["first"], facts["count"])
    pictures = {name: sum(entry["pictures"][name] for entry in entries) for name in ("wanted", "bad")}
    first_bad = [reason for entry in entries for reason in entry["first_bad"]][:SHOWN]
    if config.check_counts:
        check_count(recipe, split, sum(entry["rows"] for entry in entries) + dropped.count[LOST])
    check_bad_share(recipe, pictures["bad"], pictures["wanted"], config.max_bad_media, first_bad)
    return {
        "rows": 0,
        "official_rows": recipe.split(split).rows,
        "dropped": dropped.facts(),
        "pictures": pictures,
        "first_bad": first_bad,
        "frames": next((entry["frames"] for entry in entries if entry["frames"]), None),
        "part": None,
        "sources": {name: digest for entry in entries for name, digest in sorted(entry["sources"].items())},
    }


def _uids(part: Written) -> Iterator[list[str]]:
    for batch in datasets.Dataset.from_file(str(part.table)).select_columns(["uid"]).iter(batch_size=TOGETHER):
        yield batch["uid"]


def _refuse_doubles(parts: Sequence[Written]) -> None:
    """Raises ValueError naming an id that two parts hold."""
    known, doubles = KeySet(), set[int]()
    for part in parts:
        for uids in _uids(part):
            doubles.update(known.add(hashes(uids)).tolist())
    where: dict[str, Path] = {}
    for part in parts if doubles else []:
        for uids in _uids(part):
            for uid in (uid for uid, digest in zip(uids, hashes(uids).tolist(), strict=True) if digest in doubles):
                if uid in where:
                    raise ValueError(f"id {uid} is both in {where[uid]} and in {part.table.parent}")
                where[uid] = part.table.parent


def _rows(parts: Sequence[Written]) -> Iterator[dict[str, Any]]:
    """The rows of all parts by their numbers; the tables stay on disk."""
    filled = [part for part in parts if part.entry["rows"]]
    if not filled:
        return
    tables = datasets.concatenate_datasets([datasets.Dataset.from_file(str(part.table)) for part in filled])
    order = np.argsort(np.concatenate([part.numbers() for part in filled]), kind="stable")
    arrow = tables.with_format("arrow")
    for first in range(0, len(order), TOGETHER):
        yield from arrow[order[first : first + TOGETHER].tolist()].to_pylist()
