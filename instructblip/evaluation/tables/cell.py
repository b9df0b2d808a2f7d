"""One cell of a table: the published value, ours, and what may be said of the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from instructblip.evaluation.tables.published import Certainty
from instructblip.evaluation.tables.results import Result, Score

Found = tuple[tuple[Result, Score], ...]  # a result and the score of it that answers a column


class Verdict(StrEnum):
    inside = "within interval"
    near = "within ±m"
    differs = "differs"
    other_split = "other split"
    ineligible = "ineligible"
    unknown = "protocol unknown"
    other_recipe = "other recipe"  # of training
    selected = "selected on test"
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
    scored: Found = ()
    parts: tuple[Cell, ...] = ()  # what it is the mean of

    @property
    def difference(self) -> float | None:
        return None if self.ours is None or self.published is None else self.ours - self.published


HINDERED = (Verdict.other_recipe, Verdict.ineligible, Verdict.other_split, Verdict.part, Verdict.selected)
