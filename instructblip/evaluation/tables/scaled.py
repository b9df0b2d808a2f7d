"""The paper's tables in miniature, `experiments/miniature_tables.yaml`, filled with the runs of its sweep."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from instructblip.evaluation.tables.endpoint import PROFILE, endpoint, standing
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result
from instructblip.files import read_yaml
from instructblip.names import require
from instructblip.recipes import names as recipe_names

TABLES = Path(__file__).resolve().parents[3] / "experiments" / "miniature_tables.yaml"
BACKBONE = "control/backbone"  # the experiment that trains nothing
NOT_RUN = "not run"
NOTE = (
    "Times 100, mean and range over seeds. The endpoint is the mean of the held-out scores between floor and ceiling."
)


@dataclass
class Row:
    title: str = MISSING
    experiment: list[str] = field(default_factory=list)  # laid over base and family
    prompts: str = PROFILE


@dataclass
class ScaledTable:
    title: str = MISSING
    columns: list[str] = MISSING
    rows: list[Row] = MISSING


@dataclass
class ScaledTables:
    base: list[str] = MISSING
    families: dict[str, list[str]] = MISSING
    seeds: list[int] = MISSING
    held_in: list[str] = MISSING
    tables: list[ScaledTable] = MISSING

    def experiments(self) -> Iterator[tuple[list[str], Row]]:
        """Every row of every family with its experiments, each pair of experiments and prompts once."""
        seen = set()
        for family in self.families.values():
            for row in (row for table in self.tables for row in table.rows):
                experiment = [*self.base, *family, *row.experiment]
                if (key := (*experiment, row.prompts)) not in seen:
                    seen.add(key)
                    yield experiment, row


def load(path: Path = TABLES) -> ScaledTables:
    """Raises ValueError naming the file and a column that is no recipe."""
    declared = read_yaml(path, ScaledTables)
    for table in declared.tables:
        for column in table.columns:
            require(column, recipe_names(), f"column of {table.title} in {path}")
    return declared


def sheets(found: Sequence[Result]) -> list[Sheet]:
    """Every table of which two rows are there: one compares nothing."""
    synthetic = [result for result in found if result.synthetic]
    declared = load()
    made = [_sheet(declared, table, synthetic) for table in declared.tables]
    return [sheet for sheet in made if sum(NOT_RUN not in line for line in sheet.lines) > 1]


def _sheet(declared: ScaledTables, table: ScaledTable, found: Sequence[Result]) -> Sheet:
    lines = []
    for name, family in declared.families.items():
        for row in table.rows:
            runs = [run for run in found if run.experiment == [*declared.base, *family, *row.experiment]]
            if not runs:
                lines.append([f"{row.title}, {name}", "", *[""] * len(table.columns), NOT_RUN])
                continue
            cells = [_cell([_value(run, column, found, row.prompts) for run in runs]) for column in table.columns]
            ends = _cell([endpoint(run, found, row.prompts).value for run in runs])
            seeds = ", ".join(str(run.seed) for run in sorted(runs, key=lambda run: run.seed))
            lines.append([f"{row.title}, {name}", seeds, *cells, ends])
    return Sheet(table.title, ["", "seeds", *table.columns, "endpoint"], lines, [NOTE], numbers=True)


def _value(run: Result, recipe: str, found: Sequence[Result], prompts: str) -> float | None:
    measured = standing(run, recipe, found, prompts)
    return None if measured is None else measured.value


def _cell(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.fmean(known):.1f}"
    return f"{mean}\n{min(known):.1f} to {max(known):.1f}" if len(known) > 1 else mean
