"""Recipes of training against the one they change: over paired seeds, or, with one seed, run against run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instructblip.evaluation.statistics import DRAWS, ITEMS, SEEDS, Difference, holm, mcnemar, paired_seeds
from instructblip.evaluation.tables.cell import HINDERED, Cell, Found
from instructblip.evaluation.tables.measuring import Items, items, paired_items
from instructblip.evaluation.tables.published import PaperTable
from instructblip.evaluation.tables.rendering import Sheet, number

HEADER = ("row, against", "column", "published", "ours", "95 % interval", "p (Holm)", "McNemar's p", "said")
TWO_RUNS = "these two runs, not the recipes"
NOTES = (
    "Recipes are compared over at least two seeds that both were trained with; eight show a difference of 1.5 standard "
    "deviations (power 0.95).",
    "With one seed two runs are compared over the items both were asked (paired bootstrap, clustered by picture): "
    "whether other seeds would say the same is not known. McNemar's p, of 0/1 metrics, counts items as independent.",
)


@dataclass(frozen=True)
class Compared:
    """In points; without a difference `why` says what is missing."""

    found: Difference | None
    mcnemar: float | None = None
    why: str = ""


def sheet(table: PaperTable, cells: Sequence[Cell], draws: int = DRAWS) -> Sheet | None:
    """One line a cell of a row that changes another; p-values corrected together over the columns of a row."""
    names = [(row, name) for row, name, _ in table.cells()]
    by_place = {(tuple(row.experiment), name): cell for (row, name), cell in zip(names, cells, strict=True)}
    columns = [name for name, column in table.columns.items() if column.shown]
    lines = []
    for row in (row for row in table.rows if row.against):
        own = {name: by_place[tuple(row.experiment), name] for name in columns}
        base = {name: by_place[tuple(row.against), name] for name in columns}
        compared = {name: _compared(own[name], base[name], draws) for name in columns}
        known = {name: each.found.p for name, each in compared.items() if each.found is not None}
        corrected = dict(zip(known, holm(list(known.values())), strict=True))
        title = next(other.title for other in table.rows if other.experiment == row.against)
        for name in columns:
            paper = _published(row.cells.get(name), base[name].published)
            told = _told(compared[name], corrected.get(name), own[name], base[name])
            lines.append([f"{row.title} ({title})", table.columns[name].title, paper, *told])
    return Sheet(f"Differences that {table.title} is about", HEADER, lines, NOTES) if lines else None


def _compared(cell: Cell, base: Cell, draws: int) -> Compared:
    if not cell.seeds or not base.seeds:
        return Compared(None, why="not run")
    if found := paired_seeds(cell.seeds, base.seeds):
        return Compared(found)
    try:
        return _two_runs(cell, base, draws)
    except ValueError as error:
        return Compared(None, why=f"not compared: {error}")


def _two_runs(cell: Cell, base: Cell, draws: int) -> Compared:
    """Raises ValueError when the items are not at hand, or are not the same."""
    if cell.parts:
        return _mean(cell, base, draws)
    (one,), (other,) = _of_one_seed(cell, base)
    first, second = items(*one), items(*other)
    found = paired_items(first, second, draws)
    if found is None:
        raise ValueError("the metric cannot be drawn, or is undefined")
    in_points = replace(found, value=100 * found.value, low=100 * found.low, high=100 * found.high)
    return Compared(in_points, _mcnemar(first, second))


def _mean(cell: Cell, base: Cell, draws: int) -> Compared:
    """Of separate datasets, so variances add up; p by a normal distribution."""
    parts = [_two_runs(part, other, draws).found for part, other in zip(cell.parts, base.parts, strict=True)]
    known = [found for found in parts if found is not None]
    value = statistics.fmean(found.value for found in known)
    half = math.hypot(*((found.high - found.low) / 2 for found in known)) / len(known)
    p = math.erfc(1.96 * abs(value) / half / math.sqrt(2)) if half else float(value == 0)
    return Compared(Difference(value, value - half, value + half, p, ITEMS))


def _of_one_seed(cell: Cell, base: Cell) -> tuple[Found, Found]:
    """A run of each: of a seed that both have, or their first ones."""
    shared = sorted(set(cell.seeds or {}) & set(base.seeds or {}))
    if not shared:
        return cell.scored[:1], base.scored[:1]
    first, second = (
        tuple((run, score) for run, score in each.scored if run.seed == shared[0])[:1] for each in (cell, base)
    )
    return first, second


def _mcnemar(first: Items, second: Items) -> float | None:
    """None for a metric with values between 0 and 1."""
    pairs = list(zip(first.measured.items or (), second.measured.items or (), strict=True))
    counted = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not counted or any(value not in (0, 1) for pair in counted for value in pair):
        return None
    return mcnemar(sum(one > other for one, other in counted), sum(one < other for one, other in counted))


def _published(value: float | None, base: float | None) -> str:
    return "" if value is None or base is None else number(value - base, signed=True)


def _told(compared: Compared, p: float | None, cell: Cell, base: Cell) -> list[str]:
    found = compared.found
    if found is None or p is None:
        return ["", "", "", "", compared.why]
    said = "different" if p < 0.05 else "no difference shown"
    if found.source == SEEDS:
        said = f"recipes, {len(set(cell.seeds or {}) & set(base.seeds or {}))} paired seeds: {said}"
    else:
        said = f"{TWO_RUNS}: {said}"
    hindered = list(dict.fromkeys(each.verdict.value for each in (cell, base) if each.verdict in HINDERED))
    bounds = f"{number(found.low, signed=True)} to {number(found.high, signed=True)}"
    exact = "" if compared.mcnemar is None else f"{compared.mcnemar:.3f}"
    return [number(found.value, signed=True), bounds, f"{p:.3f}", exact, "; ".join([said, *hindered])]
