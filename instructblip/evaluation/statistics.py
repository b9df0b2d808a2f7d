"""How far a score may be trusted: intervals and comparisons, each naming the variation it accounts for.

`items`: another draw of questions about other images, asked of the same run. `items+seeds`: also another training run
of the same recipe. An interval over items says nothing about seeds: where these vary as much as the items do, it
holds the recipe's mean 83.5 % of the time, not 95 % (simulated in the tests). So one run is compared with another
over items (`paired`, `mcnemar`), and two recipes of training only over seeds that both were trained with
(`paired_seeds`). Power of that test at 5 %, by the true difference in standard deviations of the paired differences:

    seeds   1.0   1.5   2.0   3.0
        3  0.18  0.32  0.47  0.75
        5  0.40  0.71  0.91  1.00
        8  0.68  0.95  1.00  1.00
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from instructblip.data.sample import Sample
from instructblip.evaluation.measures import Measured
from instructblip.evaluation.reweighting import FLOATS, INTEGERS, Weighted

ITEMS, SEEDS, BOTH = "items", "seeds", "items+seeds"  # sources of variation
DRAWS = 1_000  # ours
LEVEL = 0.95
AT_ONCE = 1 << 21  # weights in memory


@dataclass(frozen=True, slots=True)
class Difference:
    """First less second, its 95 % interval, and the probability of one as large without any true difference."""

    value: float
    low: float
    high: float
    p: float
    source: str  # of the variation the interval and p account for


def image_of(sample: Sample) -> str:
    """What a bootstrap draws: the picture of a Sample, of a clip its first frame."""
    first = sample.shown[0]
    return f"{first.pool}/{first.key}"


def interval(
    measured: Measured, clusters: Sequence[Hashable], seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """95 % interval of one run's score over `items`: percentiles of its scores on clusters drawn with replacement.

    `clusters` has one entry a pair, equal for pairs that belong together (`image_of`). None when the score is
    undefined, cannot be drawn (METEOR) or has fewer than two clusters. Draws in which it is undefined do not count.
    """
    if measured.value is None or measured.weighted is None or len(set(clusters)) < 2:
        return None
    (drawn,) = _drawn([measured.weighted], clusters, np.random.default_rng(seed), draws)
    return _middle(drawn, len(set(clusters)))


def two_level(
    runs: Sequence[Measured], clusters: Sequence[Hashable], seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """95 % interval of a recipe's mean over `items+seeds`, from runs that differ in their seed and were asked the same.

    Student's t with the variance of the runs and that of the mean under drawn clusters, and Satterthwaite's degrees of
    freedom: to draw three seeds with replacement would understate how they vary. None as for `interval`, and for
    one run.
    """
    scorers = [run.weighted for run in runs if run.weighted is not None]
    values = [run.value for run in runs if run.value is not None]
    groups = len(set(clusters))
    if len(runs) < 2 or len(scorers) < len(runs) or len(values) < len(runs) or groups < 2:
        return None
    means = _drawn(scorers, clusters, np.random.default_rng(seed), draws).mean(axis=0)
    parts = (float(np.var(values, ddof=1)) / len(runs), len(runs) - 1), (float(np.nanvar(means, ddof=1)), groups - 1)
    total = math.fsum(part for part, _ in parts)
    freedom = total**2 / math.fsum(part**2 / own for part, own in parts) if total else 1.0
    centre, half = float(np.mean(values)), quantile_t((1 + LEVEL) / 2, freedom) * math.sqrt(total)
    return centre - half, centre + half


def paired(
    first: Measured, second: Measured, clusters: Sequence[Hashable], seed: int = 0, draws: int = DRAWS
) -> Difference | None:
    """Two runs that were asked the same items in the same order, drawn together; None as for `interval`.

    Says whether these two runs differ. Whether their recipes do is for `paired_seeds`.
    """
    if first.value is None or second.value is None or len(set(clusters)) < 2:
        return None
    if first.weighted is None or second.weighted is None:
        return None
    scorers = [first.weighted, second.weighted]
    difference = np.subtract(*_drawn(scorers, clusters, np.random.default_rng(seed), draws))
    bounds = _middle(difference, len(set(clusters)))
    if bounds is None:
        return None
    below, above = np.sum(difference <= 0), np.sum(difference >= 0)
    p = min(1.0, 2 * (1 + float(min(below, above))) / (1 + len(difference)))
    return Difference(first.value - second.value, *bounds, p, ITEMS)


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of McNemar's test: `b` items only the first run has right, `c` only the second.

    Items count as independent, so it is for metrics of 0 and 1 with about one item an image.
    """
    if min(b, c) < 0:
        raise ValueError(f"McNemar's test counts items, it was given {b} and {c}")
    total, fewer = b + c, min(b, c)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])  # logarithms
    ways = factorials[total] - factorials[: fewer + 1] - factorials[total - np.arange(fewer + 1)]
    return min(1.0, 2 * float(np.exp(ways - total * math.log(2)).sum()))


def paired_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Two recipes of training, scores by seed: a paired t-test over the seeds of both; None with fewer than two."""
    seeds = sorted(set(first) & set(second))
    if len(seeds) < 2:
        return None
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    centre, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(seeds))
    half = quantile_t((1 + LEVEL) / 2, len(seeds) - 1) * error
    p = 1.0 if centre == 0 else 0.0
    if error:
        p = 2 * (1 - below_t(abs(centre) / error, len(seeds) - 1))
    return Difference(centre, centre - half, centre + half, p, SEEDS)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values in their order, corrected for being several: below 0.05 is below it for the family (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def quantile_t(share: float, freedom: float) -> float:
    """Below which lies this share of Student's t with `freedom` >= 1 degrees, for shares above one half."""
    angles, shares = _angles(freedom)
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * share - 1, shares, angles)))


def below_t(value: float, freedom: float) -> float:
    """The share of Student's t below a value that is not negative."""
    angles, shares = _angles(freedom)
    return 0.5 + float(np.interp(math.atan(value / math.sqrt(freedom)), angles, shares)) / 2


@lru_cache(maxsize=32)
def _angles(freedom: float) -> tuple[FLOATS, FLOATS]:
    """With t = sqrt(freedom) tan(angle) the density is cos(angle)^(freedom - 1): its integral from 0, of 1 in all."""
    angles = math.pi / 2 * np.linspace(0, 1, 4_001) ** 2
    density = np.cos(angles).clip(0) ** (freedom - 1)
    shares = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) * np.diff(angles))])
    return angles, shares / shares[-1]


def _drawn(scorers: Sequence[Weighted], clusters: Sequence[Hashable], rng: np.random.Generator, draws: int) -> FLOATS:
    """(scorers, draws) scores of clusters drawn with replacement, the same ones for every scorer."""
    codes: dict[Hashable, int] = {}
    member: INTEGERS = np.array([codes.setdefault(cluster, len(codes)) for cluster in clusters])
    groups, step = len(codes), max(1, AT_ONCE // len(member))
    parts = []
    for start in range(0, draws, step):
        count = min(step, draws - start)
        picked = rng.integers(groups, size=(count, groups)) + np.arange(count)[:, None] * groups
        weights = np.bincount(picked.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)
        parts.append(np.stack([scorer(weights[:, member]) for scorer in scorers]))
    return np.concatenate(parts, axis=1)


def _middle(drawn: FLOATS, groups: int) -> tuple[float, float] | None:
    """The middle of the draws in which the score is defined; None when that is less than half of them.

    A little more than 95 %: draws of few clusters vary by (groups - 1) / groups too little, and by a normal instead
    of Student's distribution (the expanded percentile interval, Hesterberg 2015).
    """
    defined = drawn[~np.isnan(drawn)]
    if 2 * len(defined) < len(drawn):
        return None
    far = quantile_t((1 + LEVEL) / 2, groups - 1) * math.sqrt(groups / (groups - 1))
    outside = math.erfc(far / math.sqrt(2)) / 2
    low, high = np.quantile(defined, [outside, 1 - outside])
    return float(low), float(high)
