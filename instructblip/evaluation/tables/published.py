"""The paper's tables as data: `experiments/tables/*.yaml`, one file a table or figure with scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from omegaconf import MISSING

from instructblip.evaluation.measures import METRICS
from instructblip.files import read_yaml
from instructblip.names import require
from instructblip.recipes import names as recipe_names

TABLES = Path(__file__).resolve().parents[3] / "experiments" / "tables"
SCORED = ("table1", "table2", "table3", "figure4")


class Certainty(Enum):
    """How a published value is known. The paper's PDF was not at hand: everything is second-hand."""

    two_readers = "two_readers"  # two independent readers of the PDF give it
    notes = "notes"  # detailed notes of the PDF, by one reader
    bars = "bars"  # read off a figure
    memory = "memory"  # no source found, unverified


MARKS = {Certainty.two_readers: "", Certainty.notes: "'", Certainty.bars: "~", Certainty.memory: "?"}
MEANINGS = {
    Certainty.two_readers: "two readers of the PDF",
    Certainty.notes: "notes of the PDF by one reader",
    Certainty.bars: "read off the bars of the figure",
    Certainty.memory: "from memory, unverified",
}


@dataclass
class Column:
    """One dataset's score, or the mean of other columns (`mean_of`)."""

    title: str = MISSING
    recipe: str = ""
    variant: str | None = None  # of the recipe's protocol
    metric: str = ""
    split: str = ""  # the paper's
    n: int | None = None  # official size; null: not published
    mean_of: list[str] = field(default_factory=list)
    experiment: list[str] = field(default_factory=list)  # laid over the row's: a fine-tuning of its own
    zero_shot: bool = True  # the weights may have seen nothing of the dataset, else only not this split
    tolerance: float = 1.0  # points that do not matter (ours)
    unknown: str = ""  # what the paper does not say of the protocol
    server: str = ""  # that alone scores the split
    shown: bool = True  # false: only a part of a mean


@dataclass
class Row:
    title: str = MISSING
    experiment: list[str] = field(default_factory=list)  # whose runs fill it; empty: published only
    against: list[str] = field(default_factory=list)  # the experiment it is an ablation of
    released: str | None = None  # the experiment of the published weights, whose results fill it where no run does
    start: str = ""  # what its fine-tunings begin from, `init=`
    profile: str = "paper"  # of the prompts
    cells: dict[str, float] = field(default_factory=dict)  # column -> published value
    certainty: dict[str, Certainty] = field(default_factory=dict)  # where it is not the table's


@dataclass
class PaperTable:
    title: str = MISSING
    source: str = MISSING
    certainty: Certainty = MISSING
    columns: dict[str, Column] = MISSING
    rows: list[Row] = MISSING
    notes: list[str] = field(default_factory=list)

    def certainty_of(self, row: Row, column: str) -> Certainty:
        return row.certainty.get(column, self.certainty)

    def cells(self) -> Iterator[tuple[Row, str, Column]]:
        """Every cell that is shown, with the name of its column."""
        for row in self.rows:
            for name, column in self.columns.items():
                if column.shown:
                    yield row, name, column


@cache
def load(name: str) -> PaperTable:
    """A table by name. Raises ValueError naming the file and what is wrong in it."""
    require(name, SCORED, "table")
    return read(TABLES / f"{name}.yaml")


def read(path: Path) -> PaperTable:
    table = read_yaml(path, PaperTable)
    for name, column in table.columns.items():
        try:
            if column.mean_of:
                for part in column.mean_of:
                    require(part, table.columns, "column")
            else:
                require(column.recipe, recipe_names(), "recipe")
                require(column.metric, METRICS, "metric")
        except ValueError as error:
            raise ValueError(f"{path}: columns.{name}: {error}") from error
    for number, row in enumerate(table.rows):
        for cell in (*row.cells, *row.certainty):
            if cell not in table.columns:
                raise ValueError(f"{path}: rows[{number}] ({row.title}): {cell!r} is no column of the table")
    return table
