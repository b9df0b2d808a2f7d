"""What a scores.json does not hold: the items of a run, drawn again for an interval or with a part left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instructblip import recipes
from instructblip.data.lineage import Seen
from instructblip.data.tables import Table, manifest_hash, table_path
from instructblip.evaluation.measures import Measured, Pair, metric
from instructblip.evaluation.predictions import read, rows_of
from instructblip.evaluation.statistics import image_of
from instructblip.evaluation.tables.published import Column
from instructblip.evaluation.tables.results import Result, Score
from instructblip.files import sha256


@dataclass(frozen=True)
class Items:
    """A run's answers to a split, as its metric measures them."""

    uids: tuple[str, ...]
    measured: Measured
    images: tuple[str, ...]  # the cluster of each pair


def items(result: Result, score: Score, column: Column) -> Items:
    """Reads predictions and table again. Raises ValueError saying why they are not what was scored."""
    read_again = pairs(result, score)
    measured = metric(str(score.facts["metric"]))(read_again)
    samples = [sample for _, sample in read_again]
    return Items(tuple(sample.uid for sample in samples), measured, tuple(map(image_of, samples)))


def pairs(result: Result, score: Score) -> list[Pair]:
    """Predictions with their Samples, in the order of the table.

    Raises ValueError saying why they are not what was scored.
    """
    path = score.path.with_name("predictions.jsonl")
    if not path.is_file() or sha256(path) != score.facts.get("predictions"):
        raise ValueError(f"{path} is not what was scored: score again with predict=false")
    data = data_of(result)
    recipe = recipes.load(score.facts["recipe"])
    split = str(score.facts.get("split") or recipe.protocol("paper", score.facts.get("variant")).split)
    if manifest_hash(data, recipe.name, split) != score.facts["manifest"]:
        raise ValueError(f"{recipe.name}/{split} in {data} was prepared anew since")
    table = Table(table_path(data, recipe.name, split))
    samples = [table.sample(row) for row in rows_of(len(table), score.facts["limit"])]
    _, predictions = read(path)
    by_uid = {prediction.uid: prediction for prediction in predictions}
    if len(by_uid) != len(samples) or any(sample.uid not in by_uid for sample in samples):
        raise ValueError(f"{path} does not hold one prediction a Sample")
    return [(by_uid[sample.uid], sample) for sample in samples]


def clean_score(
    result: Result, score: Score, column: Column, lineage: Sequence[Seen], own: Items
) -> tuple[float | None, int]:
    """The score of the items whose picture the weights have never seen, and how many they are.

    Raises ValueError when the audit that tells them is not there.
    """
    from instructblip.data.leakage.audit import clean_rows  # with torch, not needed for less

    recipe = recipes.load(column.recipe)
    split = str(score.facts.get("split") or recipe.protocol("paper", column.variant).split)
    seen = {(f"{recipe_of(each)}/{each.split}", each.manifest) for each in lineage if each.drawn}
    rows = clean_rows(data_of(result), sorted(seen), f"{recipe.table}/{split}", len(own.uids))
    return own.measured.over(rows.tolist()) if len(rows) else None, len(rows)


def recipe_of(seen: Seen) -> str:
    """The recipe whose table was drawn from."""
    return recipes.load(seen.recipe).table if seen.recipe in recipes.names() else seen.recipe


def data_of(result: Result) -> Path:
    """Where the run's prepared data lie. Raises ValueError when they are not there."""
    data = result.config.get("paths", {}).get("data")
    if not data or not (Path(data) / "tables").is_dir():
        raise ValueError(f"the prepared data of {result.name} are not at hand")
    return Path(data)
