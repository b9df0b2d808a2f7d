"""Filling a table: each cell's published value beside ours, and what may be said of the difference."""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Sequence
from dataclasses import replace

from instructblip import recipes
from instructblip.config.data import PartitionConfig
from instructblip.data.lineage import ineligible
from instructblip.evaluation.statistics import BOTH, DRAWS, ITEMS, quantile_t
from instructblip.evaluation.tables.cell import HINDERED, Cell, Found, Verdict
from instructblip.evaluation.tables.measuring import clean_score, interval_over_seeds, items
from instructblip.evaluation.tables.published import Column, PaperTable, Row
from instructblip.evaluation.tables.results import EXPERIMENTS, Result, Score
from instructblip.recipes import Recipe


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
    """The runs of the row's experiment; without any, the results of the published weights."""
    wanted = [*row.experiment, *column.experiment]
    runs = [result for result in found if wanted and result.experiment == wanted]
    runs = [run for run in runs if not row.start or run.start == row.start]
    return runs or [result for result in found if row.released and result.stands_for(row.released)]


def _single(table: PaperTable, row: Row, name: str, column: Column, found: Sequence[Result], draws: int) -> Cell:
    cell = Cell(row.title, column.title, row.cells.get(name), table.certainty_of(row, name), Verdict.published)
    if not row.experiment and not row.released:
        return cell
    runs = matching(row, column, found)
    scored = tuple((run, score) for run in runs if (score := _score(run, row, column)))
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
    chosen = tuple(ranked[-1].values())
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
    train = f"`python train.py {quoted}" + (f" init={row.start}`" if row.start else "`")
    if missing:
        train = f"an experiment file conf/experiment/{missing[0]}.yaml and {train}"
    if row.released and not column.experiment:
        train += f" (or, of the published weights, {_published_weights(row.released)})"
    return f"needs {train}, then `python evaluate.py run=RUN {asked}`"


def _published_weights(released: str) -> str:
    if (EXPERIMENTS / f"{released}.yaml").is_file():
        return f"`python train.py experiment={released}`, which trains nothing"
    return f"`python evaluate.py checkpoint=DIR name={released.removeprefix('released/')}`"


def _measured(cell: Cell, column: Column, scored: Found, draws: int) -> Cell:
    """Our value: of one run, or the mean over the seeds of several."""
    values = {run.seed: 100 * score.facts["value"] for run, score in scored}
    n = min(score.facts["n"] for _, score in scored)
    cell = replace(
        cell, ours=plain_statistics.fmean(values.values()), n=n, seeds=values, scored=scored,
        runs=tuple(score.path.parent for _, score in scored), source=BOTH if len(scored) > 1 else ITEMS,
    )  # fmt: skip
    trained = [run for run, _ in scored if not run.published]
    notes = list(dict.fromkeys(f"mixture {run.mixture}" for run in trained if run.mixture != "paper"))
    if not trained:
        notes.append("published weights, not trained here")
    bounds = scored[0][1].facts.get("interval")
    if len(scored) > 1:
        try:
            bounds = interval_over_seeds(tuple(items(run, score) for run, score in scored), draws)
        except ValueError as error:
            bounds = None
            notes.append(f"no interval: {error}")
    if bounds:
        cell = replace(cell, low=100 * bounds[0], high=100 * bounds[1])
    return replace(_clean(cell, scored, notes), notes=tuple(notes))


def _clean(cell: Cell, scored: Found, notes: list[str]) -> Cell:
    values, sizes = [], []
    for run, score in scored:
        lineage = run.lineage(score.facts["checkpoint"])
        if lineage is None:
            notes.append("no clean subset: what these weights have seen is not known")
            return cell
        try:
            value, size = clean_score(run, score, lineage)
        except ValueError as error:
            notes.append(f"no clean subset: {error}")
            return cell
        values += [value] if value is not None else []
        sizes.append(size)
    return replace(cell, clean=100 * plain_statistics.fmean(values) if values else None, clean_n=min(sizes))


def _judged(cell: Cell, column: Column, scored: Found) -> Cell:
    """Why there is no verdict, the gravest reason first; else what the interval says."""
    recipe = recipes.load(column.recipe)
    chose = [score.split for run, score in scored if (recipe.table, score.split) in run.selected_on]
    verdict, why = _hindrance(column, recipe, scored)
    if verdict is not None:
        notes = [Verdict.selected.value] if chose else []
        return replace(cell, verdict=verdict, why=why, notes=(*cell.notes, *notes))
    if chose:
        why = f"the checkpoint was chosen by its score on {recipe.table}/{chose[0]}"
        return replace(cell, verdict=Verdict.selected, why=why)
    return _compared(cell, column)


def _hindrance(column: Column, recipe: Recipe, scored: Found) -> tuple[Verdict | None, str]:
    for run, score in scored:
        if run.deviations:
            return Verdict.other_recipe, ", ".join(run.deviations[:3])
        seen = run.lineage(score.facts["checkpoint"])
        if seen is None and run.config:
            return Verdict.ineligible, "its checkpoint is gone, so what it saw is not known"
        if reason := ineligible(seen or [], recipe, score.split, score.facts["manifest"], column.zero_shot):
            return Verdict.ineligible, reason
        if score.split != column.split:
            return Verdict.other_split, f"ours is {score.split}, the paper's {column.split}"
        official = column.n or recipe.split(score.split).rows
        if score.facts["limit"] is not None or (official and score.facts["n"] < official):
            return Verdict.part, f"{score.facts['n']:,} of {official or 'all':,} items"
    return None, ""


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
        source=BOTH if len(values) > 1 else ITEMS, parts=tuple(parts),
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
