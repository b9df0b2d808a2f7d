"""Small plots as geometry in SVG's units, which the templates draw: lines over steps, and dots with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, LINES, ROW = 560.0, 190.0, 26.0  # of a plot's inside; height of a line chart, and of a row of dots
POINTS = 400  # at most, of a line (ours)
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and the number there."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """`points` as a polyline takes them; `last` is the number it ends with."""

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """Lines over steps; the first is the one that the others are parts of."""

    title: str
    lines: Sequence[Line]
    x: Sequence[Tick]
    y: Sequence[Tick]
    height: float = LINES


@dataclass(frozen=True)
class Value:
    """A score of one run in per cent; `control`: what was shown in place of its question's picture."""

    run: int
    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    control: str = ""

    @property
    def said(self) -> str:
        bounds = "no interval" if self.low is None or self.high is None else f"{self.low:.1f} to {self.high:.1f}"
        said = f"{self.name}: {self.value:.1f} ({bounds}), n = {self.n:,}"
        return f"{said}, {self.control}" if self.control else said


@dataclass(frozen=True)
class Dot:
    """`low` and `high` are the ends of the interval's line."""

    value: Value
    x: float
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Band:
    """The scores of all runs on one recipe."""

    name: str
    metric: str
    y: float  # of its middle
    height: float
    dots: Sequence[Dot]


@dataclass(frozen=True)
class DotPlot:
    """One row a recipe, over one axis."""

    title: str
    bands: Sequence[Band]
    x: Sequence[Tick]
    height: float

    @property
    def runs(self) -> set[int]:
        """Which runs have a dot."""
        return {dot.value.run for band in self.bands for dot in band.dots}


def chart(title: str, series: Mapping[str, Points]) -> Chart | None:
    """None where no line has a number; a value that is no number leaves a gap in the thinned line."""
    finite = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    known = {name: thinned(points) for name, points in finite.items() if points}
    if not known:
        return None
    steps = [x for points in known.values() for x, _ in points]
    values = [y for points in known.values() for _, y in points]
    first, last = min(steps), max(steps)
    rungs = ticks(min(values), max(values))
    low, high = min(rungs[0], min(values)), max(rungs[-1], max(values))

    def x(step: float) -> float:
        return WIDTH * (step - first) / (last - first) if last > first else WIDTH / 2

    def y(value: float) -> float:
        return LINES * (high - value) / (high - low)

    lines = [
        Line(name, " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points), number(points[-1][1]))
        for name, points in known.items()
    ]
    whole = [step for step in ticks(first, last) if first <= step <= last and step == int(step)]
    return Chart(
        title, lines, [Tick(x(each), f"{each:,.0f}") for each in whole], [Tick(y(v), number(v)) for v in rungs]
    )


def dot_plot(title: str, scores: Mapping[tuple[str, str], Sequence[Value]]) -> DotPlot | None:
    """`scores` by recipe and metric."""
    if not scores:
        return None
    ends = [end for row in scores.values() for each in row for end in (each.value, each.high or 0.0, each.low or 0.0)]
    rungs = ticks(min(0.0, *ends), max(100.0, *ends), count=10)
    low, high = rungs[0], rungs[-1]

    def x(value: float) -> float:
        return WIDTH * (value - low) / (high - low)

    bands, top = [], 0.0
    for (recipe, metric), row in scores.items():
        height = ROW + 11.0 * (len(row) - 1)
        start = top + height / 2 - 11.0 * (len(row) - 1) / 2
        dots = [
            Dot(
                each, x(each.value), start + 11.0 * place,
                None if each.low is None else x(each.low), None if each.high is None else x(each.high),
            )
            for place, each in enumerate(row)
        ]  # fmt: skip
        bands.append(Band(recipe, metric, top + height / 2, height, dots))
        top += height
    return DotPlot(title, bands, [Tick(x(each), number(each)) for each in rungs], top)


def thinned(points: Points) -> Points:
    """Every k-th point, counted from the last, so that at most `POINTS` are left."""
    stride = math.ceil(len(points) / POINTS)
    return points[::-1][::stride][::-1]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them."""
    if high <= low:
        low, high = (low - 1, high + 1) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    raw = (high - low) / (count - 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= raw * 0.999)
    return [step * each for each in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def number(value: float) -> str:
    """Four digits that matter."""
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"
