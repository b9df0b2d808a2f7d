"""Known answers, and on simulated worlds how often the intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructblip.evaluation import captions, reweighting
from instructblip.evaluation.measures import Measured, metric
from instructblip.evaluation.statistics import (
    below_t,
    holm,
    image_of,
    interval,
    mcnemar,
    paired,
    paired_seeds,
    quantile_t,
    two_level,
)

from .conftest import statement

WORLDS = 800  # simulated; the standard error of a coverage of 95 % is 0.8 points


def measured(items: list[float | None] | np.ndarray) -> Measured:
    values = [None if item is None else float(item) for item in items]
    known = [value for value in values if value is not None]
    value = sum(known) / len(known) if known else None
    return Measured(value, len(known), tuple(values), lambda places: None, {}, reweighting.mean(values))


def coverage(bounds: list[tuple[float, float] | None], truth: float = 0.0) -> float:
    return sum(low <= truth <= high for low, high in filter(None, bounds)) / len(bounds)


def test_an_interval_over_single_items_is_that_of_a_share() -> None:
    bounds = interval(measured([1.0] * 300 + [0.0] * 700), range(1000), draws=4000)
    assert bounds is not None
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert bounds == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_questions_of_one_image_are_drawn_together() -> None:
    """Ten equal answers an image are one answer an image; counted apart they would look ten times as many."""
    items = [float(image % 2) for image in range(100) for _ in range(10)]
    together = interval(measured(items), [image for image in range(100) for _ in range(10)])
    apart = interval(measured(items), range(1000))
    alone = interval(measured(items[::10]), range(100))
    assert together and apart and together == alone
    assert (together[1] - together[0]) / (apart[1] - apart[0]) == pytest.approx(math.sqrt(10), rel=0.15)


def test_the_same_seed_draws_the_same() -> None:
    items = [0.1 * number for number in range(40)]
    assert interval(measured(items), range(40), seed=1) == interval(measured(items), range(40), seed=1)
    assert interval(measured(items), range(40), seed=1) != interval(measured(items), range(40), seed=2)


def test_what_has_no_interval() -> None:
    assert interval(measured([None, None]), [0, 1]) is None
    assert interval(measured([1.0, 0.0]), ["one", "one"]) is None
    meteor = Measured(0.3, 4, None, lambda places: None, {})
    assert interval(meteor, range(4)) is None and paired(meteor, meteor, range(4)) is None
    assert two_level([measured([1.0, 0.0])], [0, 1]) is None
    assert interval(measured([1.0, *[None] * 9]), range(10)) is not None
    assert interval(measured([1.0, *[None] * 999]), range(1000), draws=50) is not None


def test_a_rare_class_leaves_few_draws_but_no_false_bound() -> None:
    labels, scores = [1] + [0] * 9, [float(number) for number in range(10)]
    auroc = Measured(0.0, 10, None, lambda places: None, {}, reweighting.auroc(labels, scores))
    assert interval(auroc, range(10)) == (0.0, 0.0)


def test_captions_are_scored_anew_in_every_draw() -> None:
    from .test_measures import pair

    texts = ["a red bus", "two dogs", "a man on a horse", "a kite in the sky", "the red bus", "a dog"]
    pairs = [pair(text if number % 2 else "a dog", text, number=number) for number, text in enumerate(texts)]
    measure = metric("cider")(pairs)
    assert measure.items and measure.weighted
    draw = np.array([[3.0, 0, 0, 0, 1, 2]])
    frozen = (draw[0] @ np.array(measure.items, dtype=float)) / 6
    places = [0, 0, 0, 4, 5, 5]
    assert measure.weighted(draw)[0] == pytest.approx(measure.over(places))
    assert abs(measure.weighted(draw)[0] - frozen) > 0.005  # not the items of the whole corpus
    assert captions.MEANS and interval(measure, range(6)) is not None


def test_an_interval_of_clustered_items_holds_the_truth_95_times_of_100() -> None:
    rng = np.random.default_rng(5)
    images, each = 50, 2
    worlds = rng.normal(size=(WORLDS, images, 1)) + rng.normal(size=(WORLDS, images, each))
    clusters = np.repeat(np.arange(images), each).tolist()
    bounds = [interval(measured(world.ravel()), clusters, seed=at, draws=300) for at, world in enumerate(worlds)]
    assert 0.93 <= coverage(bounds) <= 0.97
    apart = [interval(measured(world.ravel()), range(images * each), draws=100) for world in worlds[:100]]
    assert coverage(apart) < 0.91


def test_an_items_interval_misses_a_recipe_whose_seeds_vary_and_two_levels_do_not() -> None:
    """Seeds that vary as much as the items: 83.5 % over items, 95 % with both levels."""
    rng = np.random.default_rng(1)
    images, seeds, worlds = 50, 3, 500
    item = rng.normal(size=(worlds, 1, images))
    seed = rng.normal(size=(worlds, seeds, 1)) / math.sqrt(images)  # the mean over items varies as much
    scores = [[measured(run) for run in world] for world in item + seed]
    one = [interval(runs[0], range(images), seed=at, draws=250) for at, runs in enumerate(scores)]
    assert 0.80 <= coverage(one) <= 0.87
    both = [two_level(runs, range(images), seed=at, draws=200) for at, runs in enumerate(scores)]
    assert 0.93 <= coverage(both) <= 0.97


def test_two_runs_are_compared_on_the_same_items() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(size=400)
    first, second = measured(hard + 0.05), measured(hard + rng.normal(scale=0.1, size=400))
    found = paired(first, second, range(400))
    assert found and found.source == "items" and found.low < 0.05 < found.high
    assert found.high - found.low < 0.03 and found.p < 0.01  # each alone varies ten times as much
    same = paired(first, first, range(400))
    assert same and (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(5, 15, 0.04138946533203125), (0, 0, 1.0), (0, 6, 0.03125), (10, 10, 1.0), (15, 5, 0.04138946533203125)],
)
def test_mcnemar_is_exact(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, rel=1e-9)


def test_mcnemar_of_many_items_and_of_none() -> None:
    z = (5200 - 4800 - 1) / math.sqrt(10_000)  # with the continuity correction
    assert mcnemar(5200, 4800) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    with pytest.raises(ValueError, match="-1"):
        mcnemar(-1, 3)


def test_recipes_are_compared_over_common_seeds() -> None:
    """R: t.test(c(2, 3, 4), c(1, 1, 1), paired = TRUE): t = 3.4641, p = 0.07418."""
    found = paired_seeds({1: 2.0, 2: 3.0, 3: 4.0, 9: 100.0}, {1: 1.0, 2: 1.0, 3: 1.0, 8: 0.0})
    assert found and found.source == "seeds" and found.value == 2.0
    assert found.p == pytest.approx(0.07418, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((-0.48414, 4.48414), abs=1e-4)
    assert paired_seeds({1: 2.0, 2: 3.0}, {2: 1.0, 3: 1.0}) is None
    same = paired_seeds({1: 2.0, 2: 3.0}, {1: 1.0, 2: 2.0})
    assert same and (same.low, same.high, same.p) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 7, 2.36462), (0.975, 1e6, 1.95996), (0.95, 4.5, 2.0652)],
)
def test_students_t(share: float, freedom: float, value: float) -> None:
    assert quantile_t(share, freedom) == pytest.approx(value, rel=1e-3 if freedom == 4.5 else 2e-4)
    assert below_t(quantile_t(share, freedom), freedom) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    ("seeds", "powers"), [(3, (0.18, 0.32, 0.47, 0.75)), (5, (0.40, 0.71, 0.91, 1.00)), (8, (0.68, 0.95, 1.00, 1.00))]
)
def test_the_power_of_seeds_is_as_documented(seeds: int, powers: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seeds)
    for effect, power in zip((1.0, 1.5, 2.0, 3.0), powers, strict=True):
        drawn = rng.normal(effect, size=(20_000, seeds))
        t = np.abs(drawn.mean(axis=1)) / drawn.std(axis=1, ddof=1) * math.sqrt(seeds)
        assert np.mean(t > quantile_t(0.975, seeds - 1)) == pytest.approx(power, abs=0.015)


def test_holm_corrects_for_being_several() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_a_cluster_is_the_picture() -> None:
    assert image_of(statement(7)) == "coco/2"
