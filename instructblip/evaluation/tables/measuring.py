"""What a scores.json does not hold: the items of a run, drawn again for an interval or with a part left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from instructblip import recipes
from instructblip.data.lineage import PUBLISHED, Seen
from instructblip.data.tables import Table, manifest_hash, table_path
from instructblip.evaluation.measures import Measured, Pair, metric
from instructblip.evaluation.predictions import read, rows_of
from instructblip.evaluation.statistics import Difference, image_of, paired, two_level
from instructblip.evaluation.tables.results import Result, Score
from instructblip.files import sha256


@dataclass(frozen=True, eq=False)  # hashed by identity
class Items:
    """A run's answers to a split, as its metric measures them."""

    uids: tuple[str, ...]
    measured: Measured
    images: tuple[str, ...]  # the cluster of each pair


@dataclass(frozen=True)
class _Asked:
    """Predictions that were scored, and the rows they answer. `hash` is of the file."""

    path: Path
    hash: str
    table: Path
    limit: int | None


def items(result: Result, score: Score) -> Items:
    """Reads predictions and table, once in a process. Raises ValueError saying why they are not what was scored."""
    return _items(_asked(result, score), str(score.facts["metric"]))


def pairs(result: Result, score: Score) -> list[Pair]:
    """Predictions with their Samples, in the order of the table.

    Raises ValueError saying why they are not what was scored.
    """
    return _pairs(_asked(result, score))


@cache
def interval_over_seeds(runs: tuple[Items, ...], draws: int) -> tuple[float, float] | None:
    """Raises ValueError when the runs were asked different items."""
    if any(each.uids != runs[0].uids for each in runs):
        raise ValueError("its seeds were asked different items")
    return two_level([each.measured for each in runs], runs[0].images, draws=draws)


@cache
def paired_items(first: Items, second: Items, draws: int) -> Difference | None:
    """Raises ValueError when the two were asked different items."""
    if first.uids != second.uids:
        raise ValueError("the two runs were asked different items")
    return paired(first.measured, second.measured, first.images, draws=draws)


def clean_score(result: Result, score: Score, lineage: Sequence[Seen]) -> tuple[float | None, int]:
    """The score of the items whose picture the weights have never seen, and how many they are.

    Of published weights all that is prepared of a training split counts as seen.
    Raises ValueError when the audit that tells them is not there.
    """
    from instructblip.data.leakage.audit import clean_rows  # with torch, not needed for less

    data, recipe = data_of(result), recipes.load(score.facts["recipe"])
    seen = {_drawn_from(data, each) for each in lineage if each.drawn}
    table = Table(table_path(data, recipe.table, score.split))
    asked = len(rows_of(len(table), score.facts["limit"]))
    rows = clean_rows(data, sorted(seen), f"{recipe.table}/{score.split}", asked)
    if len(rows) == asked:
        return score.facts["value"], asked
    return items(result, score).measured.over(rows.tolist()) if len(rows) else None, len(rows)


def _drawn_from(data: Path, seen: Seen) -> tuple[str, str]:
    """A table by its name, recipe/split, and hash."""
    name = recipe_of(seen)
    if seen.manifest != PUBLISHED:
        return f"{name}/{seen.split}", seen.manifest
    if not table_path(data, name, seen.split).is_file():
        raise ValueError(f"{name}/{seen.split}, which these weights have seen, is not prepared here")
    return f"{name}/{seen.split}", manifest_hash(data, name, seen.split)


def recipe_of(seen: Seen) -> str:
    """The recipe whose table was drawn from."""
    return recipes.load(seen.recipe).table if seen.recipe in recipes.names() else seen.recipe


def data_of(result: Result) -> Path:
    """Where the run's prepared data lie. Raises ValueError when they are not there."""
    data = result.config.get("paths", {}).get("data")
    if not data or not (Path(data) / "tables").is_dir():
        raise ValueError(f"the prepared data of {result.name} are not at hand")
    return Path(data)


def _asked(result: Result, score: Score) -> _Asked:
    path = score.path.with_name("predictions.jsonl")
    hashed = sha256(path) if path.is_file() else ""
    if hashed != score.facts.get("predictions"):
        raise ValueError(f"{path} is not what was scored: score again with predict=false")
    data, recipe = data_of(result), recipes.load(score.facts["recipe"])
    if manifest_hash(data, recipe.name, score.split) != score.facts["manifest"]:
        raise ValueError(f"{recipe.name}/{score.split} in {data} was prepared anew since")
    return _Asked(path, hashed, table_path(data, recipe.name, score.split), score.facts["limit"])


@cache
def _items(asked: _Asked, name: str) -> Items:
    read_again = _pairs(asked)
    samples = [sample for _, sample in read_again]
    images = tuple(map(image_of, samples))
    return Items(tuple(sample.uid for sample in samples), metric(name)(read_again), images)


def _pairs(asked: _Asked) -> list[Pair]:
    table = Table(asked.table)
    samples = [table.sample(row) for row in rows_of(len(table), asked.limit)]
    _, predictions = read(asked.path)
    by_uid = {prediction.uid: prediction for prediction in predictions}
    if len(by_uid) != len(samples) or any(sample.uid not in by_uid for sample in samples):
        raise ValueError(f"{asked.path} does not hold one prediction a Sample")
    return [(by_uid[sample.uid], sample) for sample in samples]
