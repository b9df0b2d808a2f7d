"""The paper's claims, recomputed from its cells and, where they were run, from ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from instructblip.evaluation.tables import published
from instructblip.evaluation.tables.cell import Cell
from instructblip.evaluation.tables.published import MEANINGS, TABLES, Certainty, PaperTable
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.files import read_yaml
from instructblip.names import require

Values = Mapping[tuple[str, str], float]  # (row, column) -> points


class How(Enum):
    gain = "gain"  # mean over the columns of the relative gain, in percent
    ratio = "ratio"  # relative gain of the sums, in percent
    lead = "lead"  # mean difference, in points
    wins = "wins"  # columns, times pairs of rows, in which the first is higher
    best = "best"  # columns whose highest row is among `first`
    value = "value"


@dataclass
class Claim:
    text: str = MISSING
    certainty: Certainty = MISSING
    how: How = MISSING
    table: str = "table1"
    columns: list[str] = field(default_factory=list)  # empty: every column that is shown
    first: list[str] = field(default_factory=list)  # rows
    second: list[str] = field(default_factory=list)
    stated: float | None = None  # null: all of them


@dataclass
class Claims:
    title: str = MISSING
    source: str = MISSING
    claims: list[Claim] = MISSING


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the cells give: a number, or how many of how many; and what contradicts the claim."""

    value: float
    of: int | None = None
    against: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.value:.1f}" if self.of is None else f"{self.value:.0f} of {self.of}"


def load() -> Claims:
    """Raises ValueError naming the file and a row or column that is in no table."""
    path = TABLES / "claims.yaml"
    claims = read_yaml(path, Claims)
    for number, claim in enumerate(claims.claims):
        try:
            table = published.load(claim.table)
            for column in claim.columns:
                require(column, table.columns, "column")
            for row in (*claim.first, *claim.second):
                require(row, [row.title for row in table.rows], "row")
        except ValueError as error:
            raise ValueError(f"{path}: claims[{number}]: {error}") from error
    return claims


def sheet(filled: Mapping[str, Sequence[Cell]]) -> Sheet:
    """All claims: stated, what the published cells give, whether it follows, and what our cells give."""
    claims = load()
    lines = []
    for claim in claims.claims:
        table = published.load(claim.table)
        paper = recomputed(claim, table, paper_values(table))
        own_values = our_values(table, filled[claim.table])
        lacking = [f"{row}, {column}" for row, column in cells_of(claim, table) if (row, column) not in own_values]
        ours = f"not run: needs {len(lacking)} cells, the first {lacking[0]}" if lacking else ""
        if not lacking:
            ours = str(recomputed(claim, table, own_values))
        stated = "all" if claim.stated is None else f"{claim.stated:g}"
        lines.append(
            [claim.text, MEANINGS[claim.certainty], claim.how.value, stated, str(paper), says(claim, paper), ours]
        )
    header = ("claim", "known from", "how", "stated", "from the published cells", "follows", "from ours")
    return Sheet(f"{claims.title} ({claims.source})", header, lines)


def says(claim: Claim, outcome: Outcome) -> str:
    if claim.stated is None:
        return "yes" if not outcome.against else f"no: {'; '.join(outcome.against)}"
    return "yes" if abs(outcome.value - claim.stated) < 0.051 else "no"  # rounded to a tenth


def cells_of(claim: Claim, table: PaperTable) -> list[tuple[str, str]]:
    """The cells a claim is about, of those the paper has."""
    known = paper_values(table)
    rows = [*claim.first, *claim.second] if claim.how is not How.best else [row.title for row in table.rows]
    run = {row.title for row in table.rows if row.experiment}
    return [(row, column) for row in rows for column in _columns(claim, table) if (row, column) in known and row in run]


def recomputed(claim: Claim, table: PaperTable, values: Values) -> Outcome:
    columns = _columns(claim, table)
    if claim.how is How.best:
        return _best(claim, table, values)
    if claim.how is How.value:
        return Outcome(values[claim.first[0], columns[0]])
    pairs = [
        (values[one, column], values[other, column], f"{one} {table.columns[column].title}")
        for one, other in zip(claim.first, claim.second, strict=True)
        for column in columns
        if (one, column) in values and (other, column) in values
    ]
    if claim.how is How.wins:
        lost = tuple(f"{name} {one:.1f} against {other:.1f}" for one, other, name in pairs if one <= other)
        return Outcome(len(pairs) - len(lost), len(pairs), lost)
    if claim.how is How.lead:
        return Outcome(statistics.fmean(one - other for one, other, _ in pairs))
    if claim.how is How.ratio:
        return Outcome(100 * (sum(one for one, _, _ in pairs) / sum(other for _, other, _ in pairs) - 1))
    return Outcome(100 * statistics.fmean(one / other - 1 for one, other, _ in pairs))


def _best(claim: Claim, table: PaperTable, values: Values) -> Outcome:
    lost = []
    columns = _columns(claim, table)
    for column in columns:
        known = {row.title: values[row.title, column] for row in table.rows if (row.title, column) in values}
        highest = max(known, key=known.__getitem__)
        if highest not in claim.first:
            lost.append(f"{table.columns[column].title} {known[highest]:.1f} of {highest}")
    return Outcome(len(columns) - len(lost), len(columns), tuple(lost))


def _columns(claim: Claim, table: PaperTable) -> list[str]:
    return claim.columns or [name for name, column in table.columns.items() if column.shown]


def paper_values(table: PaperTable) -> Values:
    return {(row.title, column): value for row in table.rows for column, value in row.cells.items()}


def our_values(table: PaperTable, cells: Sequence[Cell]) -> Values:
    """What was run, and of rows that no experiment fills the published values."""
    names = [(row, name) for row, name, _ in table.cells()]
    values = {
        (row.title, name): cell.ours for (row, name), cell in zip(names, cells, strict=True) if cell.ours is not None
    }
    fixed = {(row.title, name): value for row in table.rows if not row.experiment for name, value in row.cells.items()}
    return fixed | values
