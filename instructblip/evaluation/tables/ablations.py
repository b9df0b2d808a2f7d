"""Recipes of training against the one they change: over paired seeds, or, with one seed, run against run."""

from __future__ import annotations

from collections.abc import Sequence

from instructblip.evaluation.statistics import Difference, holm, paired_seeds
from instructblip.evaluation.tables.cell import Cell
from instructblip.evaluation.tables.published import PaperTable
from instructblip.evaluation.tables.rendering import Sheet, number

FEW = "needs two seeds that both were trained with; eight show a difference of 1.5 standard deviations (power 0.95)"


def sheet(table: PaperTable, cells: Sequence[Cell]) -> Sheet | None:
    """One line a cell of a row that changes another; p-values corrected together over the columns of a row."""
    names = [(row, name) for row, name, _ in table.cells()]
    by_place = {(tuple(row.experiment), name): cell for (row, name), cell in zip(names, cells, strict=True)}
    lines = []
    for row in (row for row in table.rows if row.against):
        columns = [name for name, column in table.columns.items() if column.shown]
        compared = {
            name: _compared(by_place[tuple(row.experiment), name], by_place.get((tuple(row.against), name)))
            for name in columns
        }
        known = {name: found for name, found in compared.items() if found is not None}
        corrected = dict(zip(known, holm([found.p for found in known.values()]), strict=True))
        base = next((other.title for other in table.rows if other.experiment == row.against), "")
        for name in columns:
            paper = _published(row.cells.get(name), by_place.get((tuple(row.against), name)))
            lines.append(
                [
                    f"{row.title} ({base})",
                    table.columns[name].title,
                    paper,
                    *_told(known.get(name), corrected.get(name)),
                ]
            )
    if not lines:
        return None
    header = ("row, against", "column", "published", "ours", "95 % interval", "p (Holm)", "said")
    return Sheet(
        f"Differences that {table.title} is about",
        header,
        lines,
        [f"Intervals and p are over paired seeds. Where empty: {FEW}."],
    )


def _compared(cell: Cell, base: Cell | None) -> Difference | None:
    if base is None or not cell.seeds or not base.seeds:
        return None
    return paired_seeds(cell.seeds, base.seeds)


def _published(value: float | None, base: Cell | None) -> str:
    if value is None or base is None or base.published is None:
        return ""
    return number(value - base.published, signed=True)


def _told(found: Difference | None, p: float | None) -> list[str]:
    if found is None or p is None:
        return ["", "", "", "not run with paired seeds"]
    said = "different" if p < 0.05 else "no difference shown"
    bounds = f"{number(found.low, signed=True)} to {number(found.high, signed=True)}"
    return [number(found.value, signed=True), bounds, f"{p:.3f}", said]
