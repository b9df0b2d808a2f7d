"""Geometry: numbers stand where the axes say."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from instructblip.choices import Images
from instructblip.evaluation.pages.plots import LINES, POINTS, WIDTH, Value, chart, dot_plot, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.8936, 6.25), (0, 0.0019), (-3, 120), (5, 5), (0, 0), (-7, -7), (1e-9, 1e6)]
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low + 1e-12 and found[-1] >= high - 1e-12 and 2 <= len(found) <= 12
    steps = {round(after - before, 12) for before, after in pairwise(found)}
    assert max(steps) == pytest.approx(min(steps)) and all(f"{step:e}"[0] in "125" for step in steps)


def test_a_line_runs_between_its_ends() -> None:
    plot = chart("loss", {"all": [(0, 2.0), (10, math.nan), (20, 0.0)], "none": []})
    assert plot and [line.name for line in plot.lines] == ["all"] and plot.lines[0].last == "0"
    assert plot.lines[0].points == f"0.0,0.0 {WIDTH:.1f},{LINES:.1f}"
    assert [tick.text for tick in plot.x] == ["0", "5", "10", "15", "20"] and plot.y[0].text == "0"
    assert chart("nothing", {"all": [(1, math.nan)]}) is None


def test_a_long_run_is_thinned_and_ends_where_it_ends() -> None:
    points = [(float(step), 1.0) for step in range(60_000)]
    assert len(thinned(points)) <= POINTS and thinned(points)[-1] == points[-1]


def test_dots_stand_in_their_intervals() -> None:
    values = [Value(0, "a", 50.0, 40.0, 75.0, 100), Value(1, "b", 50.0, None, None, 9, control=Images.shuffled.note)]
    plot = dot_plot("Scores", {("vsr", "multiple_choice"): values, ("gqa", "gqa_accuracy"): values[:1]})
    assert plot and plot.runs == {0, 1}
    first, second = plot.bands[0].dots
    assert (first.low, first.x, first.high) == pytest.approx((0.4 * WIDTH, 0.5 * WIDTH, 0.75 * WIDTH))
    assert second.low is None and first.y < second.y < plot.bands[1].dots[0].y < plot.height
    assert "40.0 to 75.0" in values[0].said and "pictures shuffled" in values[1].said
    assert dot_plot("Scores", {}) is None
