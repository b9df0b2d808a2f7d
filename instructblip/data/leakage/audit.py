"""The audit as a command: opens what is prepared, compares, and writes a table a paper could cite.

`paths.data/audit/` then holds report.md, overlaps.json, and for policy `strict` the rows that each training split
keeps, bound to the very tables they were computed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from instructblip.data.leakage.fingerprints import Fingerprints, Progress, fingerprint_pool
from instructblip.data.leakage.overlaps import (
    KINDS,
    Catalogue,
    Overlap,
    Shown,
    duplicates,
    kept_rows,
    overlap,
    shared_rows,
    shown,
)
from instructblip.data.tables import Table, manifest_hash, table_path
from instructblip.files import read_json, replacing, write_json
from instructblip.recipes import Recipe

CAVEAT = (
    "What no audit of these data can undo: BLIP-2's own pre-training (COCO, Visual Genome, Conceptual Captions, SBU, "
    "LAION) has seen many of the evaluated pictures."
)


def audit(
    training: Sequence[Recipe],
    evaluated: Sequence[Recipe],
    data: Path,
    distance: int,
    workers: int | None,
    progress: Progress,
) -> Path:
    """Compares every prepared training split of `training` with every prepared evaluation split; returns the report.

    Raises ValueError when nothing of one side is prepared, or the extra `audit` is not installed.
    """
    sides = [_splits(training, training_splits, data), _splits(evaluated, Recipe.evaluated, data)]
    for tables, what in zip(sides, ("training", "evaluation"), strict=True):
        if not tables:
            raise ValueError(f"no {what} split is prepared in {data}: run prepare.py with the same recipes first")
    tables = {**sides[0], **sides[1]}
    catalogue = _catalogue(tables.values(), data / "media", workers, progress)
    read = {name: shown(name, table, catalogue) for name, table in progress(list(tables.items()), "splits")}
    trained, tested = ([read[name] for name in side] for side in sides)
    pairs = duplicates(catalogue, _pictures(trained), _pictures(tested), distance)
    overlaps = [overlap(one, other, pairs) for one in trained for other in tested]
    kept = {side.name: kept_rows(side, pairs) for side in trained}
    for one in trained:
        for other in tested:
            _save_rows(_shared_path(data, one.name, other.name), shared_rows(one, other, pairs))
    lacking = [*_lacking(training, training_splits, data), *_lacking(evaluated, Recipe.evaluated, data)]
    return _write(data, overlaps, kept, read, lacking, distance)


def training_splits(recipe: Recipe) -> list[str]:
    return recipe.train[:1]


def strict_rows(data: Path, recipe: str, split: str) -> np.ndarray:
    """Rows of a prepared split that show no evaluated picture.

    Raises ValueError when the audit was not made, or was made on another table.
    """
    path = data / "audit" / "overlaps.json"
    found = read_json(path)["kept"].get(f"{recipe}/{split}") if path.is_file() else None
    if found is None or found["table"] != manifest_hash(data, recipe, split):
        raise ValueError(
            f"leakage=strict needs an audit of {recipe}/{split} as it is prepared now: python prepare.py audit=true"
        )
    rows: np.ndarray = np.load(data / "audit" / f"{recipe}-{split}.npy", allow_pickle=False)
    return rows


def clean_rows(data: Path, seen: Iterable[tuple[str, str]], evaluated: str, rows: int) -> np.ndarray:
    """Rows of an evaluated split (recipe/split) that show no picture of what was seen: tables by name and hash.

    All of a table counts as seen, also where a run drew a part of it.
    Raises ValueError when the audit was not made, or not of these very tables.
    """
    path = data / "audit" / "overlaps.json"
    facts = read_json(path) if path.is_file() else {}
    if facts.get("evaluated", {}).get(evaluated) != manifest_hash(data, *evaluated.split("/")):
        raise ValueError(f"no audit of {evaluated} as it is prepared now: python prepare.py audit=true")
    clean = np.arange(rows)
    for name, table in seen:
        if facts["kept"].get(name, {}).get("table") != table:
            raise ValueError(f"no audit of {name} as it was trained on: python prepare.py audit=true")
        shared = np.load(_shared_path(data, name, evaluated), allow_pickle=False)
        clean = np.setdiff1d(clean, shared)
    return clean


def _shared_path(data: Path, training: str, evaluated: str) -> Path:
    return data / "audit" / "shared" / f"{training}--{evaluated}.npy".replace("/", "-")


def _save_rows(path: Path, rows: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)


def _splits(recipes: Sequence[Recipe], of: Callable[[Recipe], list[str]], data: Path) -> dict[str, Table]:
    """recipe/split -> table of what is prepared; a view shows what its parent shows."""
    return {name: Table(path) for name, path in _tables(recipes, of, data).items() if path.is_file()}


def _lacking(recipes: Sequence[Recipe], of: Callable[[Recipe], list[str]], data: Path) -> list[str]:
    return [name for name, path in _tables(recipes, of, data).items() if not path.is_file()]


def _tables(recipes: Sequence[Recipe], of: Callable[[Recipe], list[str]], data: Path) -> dict[str, Path]:
    """recipe/split -> where its table is or would be."""
    pairs = [(recipe.table, split) for recipe in recipes for split in of(recipe)]
    return {f"{name}/{split}": table_path(data, name, split) for name, split in pairs}


def _catalogue(tables: Iterable[Table], media: Path, workers: int | None, progress: Progress) -> Catalogue:
    names = sorted({ref.pool for table in tables for ref in table.sample(0).media})
    for name in names:
        fingerprint_pool(media / name, workers, progress)
    return Catalogue({name: Fingerprints.read(media / name) for name in names})


def _pictures(sides: Sequence[Shown]) -> np.ndarray:
    return np.concatenate([side.pictures for side in sides])


def _write(
    data: Path, overlaps: Sequence[Overlap], kept: dict[str, np.ndarray], read: dict[str, Shown],
    lacking: Sequence[str], distance: int,
) -> Path:  # fmt: skip
    folder = data / "audit"
    entries = {}
    for name, rows in kept.items():
        recipe, split = name.split("/")
        _save_rows(folder / f"{recipe}-{split}.npy", rows)
        entries[name] = {"table": manifest_hash(data, recipe, split), "rows": read[name].size, "kept": len(rows)}
    evaluated = dict.fromkeys(each.evaluation for each in overlaps)
    tables = {name: manifest_hash(data, *name.split("/")) for name in evaluated}
    facts = {"overlaps": [asdict(each) for each in overlaps], "kept": entries, "evaluated": tables}
    write_json(folder / "overlaps.json", facts)
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(report(overlaps, entries, lacking, distance), encoding="utf-8")
    return folder / "report.md"


def report(overlaps: Sequence[Overlap], kept: dict[str, dict[str, Any]], lacking: Sequence[str], distance: int) -> str:
    """Markdown: one row for each pair of splits that share something, and a line for all that share nothing."""
    sharing = [each for each in overlaps if each.training_rows or each.texts]
    lines = [
        CAVEAT, "", "# Pictures and texts shared between training and evaluation", "",
        f"Pictures are counted once, under the surest way they are the same: key (pool and id), file (equal bytes), "
        f"look (64-bit perceptual hashes that differ in at most {distance} bits, and 8x8 colours that agree).", "",
        "| training | evaluation | rows | " + " | ".join(KINDS) + " | rows on a shared picture | same text | same text "
        "and picture |", "|---|---|--:|" + "--:|" * (len(KINDS) + 3),
    ]  # fmt: skip
    for each in sharing:
        pictures = " | ".join(f"{each.pictures[kind]:,}" for kind in KINDS)
        share = f"{each.rows_on_shared:,} ({each.rows_on_shared / each.rows:.1%})"
        lines.append(
            f"| {each.training} | {each.evaluation} | {each.rows:,} | {pictures} | {share} | {each.texts:,} | "
            f"{each.texts_with_picture:,} |"
        )
    lines += ["", f"{len(overlaps) - len(sharing):,} of {len(overlaps):,} pairs of splits share nothing.", ""]
    lines += ["| training | rows | policy paper keeps | policy strict keeps |", "|---|--:|--:|--:|"]
    lines += [f"| {name} | {entry['rows']:,} | {entry['rows']:,} | {entry['kept']:,} |" for name, entry in kept.items()]
    if lacking:
        lines += ["", f"Not prepared, so not compared: {', '.join(lacking)}."]
    return "\n".join(lines) + "\n"
