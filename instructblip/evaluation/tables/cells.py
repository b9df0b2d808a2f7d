"""Filling a table: each cell's published value beside ours, and what may be said of the difference."""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from instructblip import recipes
from instructblip.config.data import PartitionConfig
from instructblip.data.lineage import ineligible
from instructblip.evaluation.statistics import BOTH, DRAWS, ITEMS, interval, quantile_t, two_level
from instructblip.evaluation.tables.measuring import Items, clean_score, items
from instructblip.evaluation.tables.published import Certainty, Column, PaperTable, Row
from instructblip.evaluation.tables.results import EXPERIMENTS, Result, Score

Found = list[tuple[Result, Score]]  # a result and the score of it that answers a column


class Verdict(StrEnum):
    inside = "within interval"
    near = "within ±m"
    differs = "differs"
    other_split = "other split"
    ineligible = "ineligible"
    unknown = "protocol unknown"
    other_recipe = "other recipe"  # of training
    part = "no verdict"  # fewer items than the official split
    no_interval = "no interval"
    published = "published only"
    not_run = "not run"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table; values in points, times 100."""

    row: str
    column: str  # its title
    published: float | None
    certainty: Certainty
    verdict: Verdict
    why: str = ""  # what the verdict says more
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    source: str = ""  # of the variation in the interval
    n: int | None = None
    clean: float | None = None  # on items whose picture the weights have not seen
    clean_n: int | None = None
    notes: tuple[str, ...] = ()
    runs: tuple[Path, ...] = ()
    seeds: Mapping[int, float] | None = None  # value by seed

    @property
    def difference(self) -> float | None:
        return None if self.ours is None or self.published is None else self.ours - self.published


def fill(table: PaperTable, found: Sequence[Result], partition: PartitionConfig, draws: int = DRAWS) -> list[Cell]:
    """Every cell of the table that is shown, and the parts of means that are run, in the table's order.

    Results of an embedded world fill nothing: they have tables of their own.
    """
    cells = []
    for row in table.rows:
        own = [
            result for result in found if not result.synthetic and (not result.config or result.of_partition(partition))
        ]
        single = {
            name: _single(table, row, name, column, own, draws)
            for name, column in table.columns.items()
            if not column.mean_of
        }
        for name, column in table.columns.items():
            if column.mean_of:
                cells.append(_mean(table, row, name, column, [single[part] for part in column.mean_of]))
            elif column.shown:
                cells.append(single[name])
    return cells


def matching(row: Row, column: Column, found: Sequence[Result]) -> list[Result]:
    """The runs of the row's experiment; without any, the results of the released checkpoint."""
    wanted = [*row.experiment, *column.experiment]
    runs = [result for result in found if wanted and result.experiment == wanted]
    return runs or [result for result in found if not result.config and result.name == row.released]


def _single(table: PaperTable, row: Row, name: str, column: Column, found: Sequence[Result], draws: int) -> Cell:
    cell = Cell(row.title, column.title, row.cells.get(name), table.certainty_of(row, name), Verdict.published)
    if not row.experiment and not row.released:
        return cell
    runs = matching(row, column, found)
    scored = [(run, score) for run in runs if (score := _score(run, row, column))]
    if not scored:
        return replace(cell, verdict=Verdict.not_run, why=needs(row, column, runs))
    chosen, left = _one_recipe(scored)
    cell = _measured(cell, column, chosen, draws)
    if left:
        cell = replace(cell, notes=(*cell.notes, f"runs of other settings are left out: {', '.join(left)}"))
    return _judged(cell, column, chosen)


def _one_recipe(scored: Found) -> tuple[Found, list[str]]:
    """The runs that differ in nothing but their seed, rather those that are as their experiment says, then the most.

    Also the names of the others.
    """
    groups: dict[str, dict[int, tuple[Result, Score]]] = {}
    for run, score in scored:
        groups.setdefault(run.recipe, {}).setdefault(run.seed, (run, score))
    ranked = sorted(groups.values(), key=lambda runs: (not next(iter(runs.values()))[0].deviations, len(runs)))
    chosen = list(ranked[-1].values())
    return chosen, [run.name for run, _ in scored if all(run is not other for other, _ in chosen)]


def _score(run: Result, row: Row, column: Column) -> Score | None:
    """The score with the most items, of several the newest."""
    fitting = [score for score in run.scores if score.answers(column.recipe, column.variant, row.profile)]
    fitting = [score for score in fitting if score.facts["value"] is not None]
    return max(fitting, key=lambda score: (score.facts["n"], score.path.stat().st_mtime), default=None)


def needs(row: Row, column: Column, runs: Sequence[Result]) -> str:
    """What is missing to fill a cell, as commands."""
    if column.server:
        return f"needs the answers to be sent to {column.server}, which alone scores this split"
    experiment = [*row.experiment, *column.experiment]
    missing = [name for name in experiment if not (EXPERIMENTS / f"{name}.yaml").is_file()]
    asked = f"recipe={column.recipe}" + (f" variant={column.variant}" if column.variant else "")
    asked += f" prompts={row.profile}" if row.profile != "paper" else ""
    if runs:
        again = [score for run in runs for score in run.outdated if score.facts.get("recipe") == column.recipe]
        evaluate = f"python evaluate.py run={runs[0].name} {asked}"
        return f"needs `{evaluate} predict=false`, its scores are of an older form" if again else f"needs `{evaluate}`"
    named = experiment[0] if len(experiment) == 1 else f"[{','.join(experiment)}]"
    quoted = f"'experiment={named}'" if len(experiment) > 1 else f"experiment={named}"
    train = f"`python train.py {quoted}`"
    if missing:
        train = f"an experiment file conf/experiment/{missing[0]}.yaml and {train}"
    if row.released and not column.experiment:
        train += f" (or, of the released weights, `python evaluate.py checkpoint=DIR name={row.released}`)"
    return f"needs {train}, then `python evaluate.py run=RUN {asked}`"


def _measured(cell: Cell, column: Column, scored: Found, draws: int) -> Cell:
    """Our value: of one run, or the mean over the seeds of several."""
    values = {run.seed: 100 * score.facts["value"] for run, score in scored}
    n = min(score.facts["n"] for _, score in scored)
    cell = replace(
        cell, ours=plain_statistics.fmean(values.values()), n=n, seeds=values,
        runs=tuple(score.path.parent for _, score in scored), source=BOTH if len(scored) > 1 else ITEMS,
    )  # fmt: skip
    notes = list(dict.fromkeys(f"mixture {run.mixture}" for run, _ in scored if run.mixture not in ("", "paper")))
    if not scored[0][0].config:
        notes.append("released checkpoint, not trained here")
    stored = scored[0][1].facts.get("interval")
    bounds: tuple[float, float] | None = tuple(stored) if len(scored) == 1 and isinstance(stored, list) else None
    try:
        read = [items(run, score, column) for run, score in scored]
    except ValueError as error:
        notes.append(f"no clean subset: {error}")
        read = []
    if read:
        bounds = bounds or _interval(read, draws)
        cell = _clean(cell, column, scored, read, notes)
    if bounds:
        cell = replace(cell, low=100 * bounds[0], high=100 * bounds[1])
    return replace(cell, notes=tuple(notes))


def _interval(read: Sequence[Items], draws: int) -> tuple[float, float] | None:
    if len(read) == 1:
        return interval(read[0].measured, read[0].images, draws=draws)
    if any(each.uids != read[0].uids for each in read):
        return None
    return two_level([each.measured for each in read], read[0].images, draws=draws)


def _clean(cell: Cell, column: Column, scored: Found, read: Sequence[Items], notes: list[str]) -> Cell:
    values, sizes = [], []
    for (run, score), own in zip(scored, read, strict=True):
        lineage = run.lineage(score.facts["checkpoint"])
        if lineage is None:
            notes.append("no clean subset: what these weights have seen is not known")
            return cell
        try:
            value, size = clean_score(run, score, column, lineage, own)
        except ValueError as error:
            notes.append(f"no clean subset: {error}")
            return cell
        values += [value] if value is not None else []
        sizes.append(size)
    return replace(cell, clean=100 * plain_statistics.fmean(values) if values else None, clean_n=min(sizes))


def _judged(cell: Cell, column: Column, scored: Found) -> Cell:
    """Why there is no verdict, the gravest reason first; else what the interval says."""
    recipe = recipes.load(column.recipe)
    for run, score in scored:
        if run.deviations:
            return replace(cell, verdict=Verdict.other_recipe, why=", ".join(run.deviations[:3]))
        split = str(score.facts.get("split") or recipe.protocol("paper", column.variant).split)
        seen = run.lineage(score.facts["checkpoint"])
        if seen is None and run.config:
            return replace(cell, verdict=Verdict.ineligible, why="its checkpoint is gone, so what it saw is not known")
        if reason := ineligible(seen or [], recipe, split, score.facts["manifest"], column.zero_shot):
            return replace(cell, verdict=Verdict.ineligible, why=reason)
        if split != column.split:
            why = f"ours is {split}, the paper's {column.split}"
            return replace(cell, verdict=Verdict.other_split, why=why)
        official = column.n or recipe.split(split).rows
        if score.facts["limit"] is not None or (official and score.facts["n"] < official):
            return replace(cell, verdict=Verdict.part, why=f"{score.facts['n']:,} of {official or 'all':,} items")
    return _compared(cell, column)


def _compared(cell: Cell, column: Column) -> Cell:
    if cell.difference is None:
        return replace(cell, verdict=Verdict.no_interval, why="nothing is published to compare with")
    unknown = f"the paper does not say {column.unknown}" if column.unknown else ""
    if cell.low is not None and cell.high is not None and cell.low <= (cell.published or 0.0) <= cell.high:
        return replace(cell, verdict=Verdict.inside, why=unknown)
    if abs(cell.difference) <= column.tolerance:
        return replace(
            cell, verdict=Verdict.near, why=f"m = {column.tolerance:g}" + (f"; {unknown}" if unknown else "")
        )
    if cell.low is None:
        return replace(cell, verdict=Verdict.no_interval, why="the predictions are not at hand")
    return replace(cell, verdict=Verdict.unknown if unknown else Verdict.differs, why=unknown)


def _mean(table: PaperTable, row: Row, name: str, column: Column, parts: Sequence[Cell]) -> Cell:
    """The mean of other columns: seeds in which all were run, intervals of separate datasets added up."""
    cell = Cell(row.title, column.title, row.cells.get(name), table.certainty_of(row, name), Verdict.published)
    if not row.experiment and not row.released:
        return cell
    lacking = [part for part in parts if part.ours is None]
    if lacking:
        names = ", ".join(part.column for part in lacking)
        return replace(cell, verdict=Verdict.not_run, why=f"{lacking[0].why}; a mean that lacks {names}")
    seeds = set.intersection(*(set(part.seeds or {}) for part in parts))
    if not seeds:
        return replace(cell, verdict=Verdict.not_run, why="needs one seed in which all its columns were run")
    values = {seed: plain_statistics.fmean((part.seeds or {})[seed] for part in parts) for seed in sorted(seeds)}
    cell = replace(
        cell, ours=plain_statistics.fmean(values.values()), seeds=values, n=sum(part.n or 0 for part in parts),
        runs=tuple(dict.fromkeys(run for part in parts for run in part.runs)),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        source=BOTH if len(values) > 1 else ITEMS,
    )  # fmt: skip
    halves = [(part.high - part.low) / 2 for part in parts if part.high is not None and part.low is not None]
    if len(halves) == len(parts):
        variance = math.fsum(half**2 for half in halves) / 1.96**2 / len(parts) ** 2
        far = 1.96
        if len(values) > 1:  # the parts' intervals hold their seeds' variation; that of the mean is seen directly
            between = plain_statistics.variance(values.values()) / len(values)
            variance, far = max(variance, between), quantile_t(0.975, len(values) - 1)
        half = far * math.sqrt(variance)
        cell = replace(cell, low=(cell.ours or 0.0) - half, high=(cell.ours or 0.0) + half)
    hindered = [part for part in parts if part.verdict in HINDERED]
    if hindered:
        return replace(cell, verdict=hindered[0].verdict, why=f"{hindered[0].column}: {hindered[0].why}")
    return _compared(cell, column)


HINDERED = (Verdict.other_recipe, Verdict.ineligible, Verdict.other_split, Verdict.part)
