"""What the measures of many scenes say, with intervals: does the Q-Former look at what is asked, and need it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from instructblip.evaluation import metrics, reweighting
from instructblip.evaluation.lens.measuring import Measures
from instructblip.evaluation.lens.scenes import ANSWERS
from instructblip.evaluation.measures import Measured
from instructblip.evaluation.statistics import holm, interval, paired
from instructblip.evaluation.tables.rendering import Sheet

DRAWS = 10_000  # of the bootstrap (ours): a p can be as small as 0.0002
Value = Callable[[Measures], float]


@dataclass(frozen=True)
class Quantity:
    """A mean over scenes, or of two values of each scene the mean difference."""

    name: str
    value: Value
    less: Value | None = None


@dataclass(frozen=True)
class Estimate:
    """`p` is of there being no difference, corrected for the main ones of the table (Holm); None for all others."""

    name: str
    of: str  # a run, or one run less another
    value: float
    low: float | None
    high: float | None
    p: float | None


INSTRUCTED = Quantity("same box, asked about less not", lambda m: fmean(m.asked), lambda m: fmean(m.instead))
NEEDED = Quantity("lost, asked about less another", lambda m: m.without_other, lambda m: m.without_asked)
LEVELS = (
    Quantity("attention to what is asked about", lambda m: fmean(m.asked)),
    Quantity("attention to the other objects", lambda m: fmean(m.others)),
    Quantity("lost without what is asked about", lambda m: m.whole - m.without_asked),
    Quantity("lost without another of its size", lambda m: m.whole - m.without_other),
    Quantity("true answer is the likeliest", lambda m: float(m.first)),
)
MAIN = (
    Quantity("asked about less another of its size", lambda m: fmean(m.asked), lambda m: fmean(m.other)),
    INSTRUCTED,
    NEEDED,
    Quantity("lost when painted over, the same", lambda m: m.painted_other, lambda m: m.painted_asked),
)
NOTES = (
    "Attention: the share of the patches' attention that is in an object's cell, over the cell's share of the picture: "
    "1 is a blind look. Mean over heads, queries and layers; CLS is left out.",
    "Another of its size: which of the two is asked about is drawn, so without an effect they differ by chance alone; "
    "the other objects are of any size, and large ones draw attention whatever is asked.",
    "Same box: its attention when its object is asked about, less when another of that size is, in the same picture. "
    "What the instruction does, and exactly 0 where the Q-Former does not read it.",
    "Lost: log-likelihood of the true answer, in nats, once the patches of an object are replaced by what the encoder "
    "gives at these places when the object is painted over: tokens with their own position that say background, as "
    "the mean token does not. Painted over: all tokens of that picture, also those that had taken in the object.",
    "Bootstrap over scenes, each with all its values (items, not seeds); p is corrected for all of this table (Holm).",
)


def measured(values: Sequence[float]) -> Measured:
    """A mean over scenes as `statistics` takes it."""
    items = tuple(values)
    return Measured(
        metrics.mean(items), len(items), items, lambda places: metrics.mean([items[at] for at in places]), {},
        reweighting.mean(items),
    )  # fmt: skip


def estimates(name: str, found: Sequence[Measures], layers: Sequence[int]) -> list[Estimate]:
    """Of one run: levels, the main differences, what the instruction changes by layer, and both checks by program."""
    kept = [_estimate(each, name, found) for each in (*LEVELS, *MAIN)]
    parts = [_in_layer(place, number) for place, number in enumerate(layers)]
    kept += [replace(_estimate(each, name, found), p=None) for each in parts]
    for program in ANSWERS:
        own = [each for each in found if each.program == program]
        for each in (INSTRUCTED, NEEDED):
            part = replace(each, name=f"{each.name}: {program}")
            kept.append(replace(_estimate(part, name, own), p=None))
    return kept


def compared(names: tuple[str, str], first: Sequence[Measures], second: Sequence[Measures]) -> list[Estimate]:
    """One run less another on the same scenes: how the main differences differ, and the true answers."""
    kept = []
    for each in (*MAIN, LEVELS[-1]):
        one, two = (measured([_gap(each, m) for m in found]) for found in (first, second))
        kept.append(_difference(each.name, " less ".join(names), one, two))
    return kept


def corrected(found: Sequence[Estimate]) -> list[Estimate]:
    """With every p corrected for all of them."""
    adjusted = iter(holm([each.p for each in found if each.p is not None]))
    return [each if each.p is None else replace(each, p=next(adjusted)) for each in found]


def sheet(title: str, found: Sequence[Estimate]) -> Sheet:
    """A line for each quantity, a column for each run and for one less the other."""
    columns = list(dict.fromkeys(each.of for each in found))
    cells = {(each.name, each.of): _said(each) for each in found}
    names = dict.fromkeys(each.name for each in found)
    lines = [[name, *(cells.get((name, column), "") for column in columns)] for name in names]
    return Sheet(title, ["mean over scenes (95 %)", *columns], lines, NOTES, numbers=True)


def _said(estimate: Estimate) -> str:
    """Two lines, as the paper's tables have it: the mean with its p, and the interval."""
    p = "" if estimate.p is None else f", p {estimate.p:.4f}"
    bounds = "" if estimate.low is None or estimate.high is None else f"\n{estimate.low:.3f} to {estimate.high:.3f}"
    return f"{estimate.value:.3f}{p}{bounds}"


def _estimate(quantity: Quantity, of: str, found: Sequence[Measures]) -> Estimate:
    values = measured([quantity.value(each) for each in found])
    if quantity.less is not None:
        return _difference(quantity.name, of, values, measured([quantity.less(each) for each in found]))
    assert values.value is not None
    low, high = interval(values, range(len(found)), draws=DRAWS) or (None, None)
    return Estimate(quantity.name, of, values.value, low, high, None)


def _difference(name: str, of: str, first: Measured, second: Measured) -> Estimate:
    found = paired(first, second, range(first.n), draws=DRAWS)
    if found is None:
        assert first.value is not None and second.value is not None
        return Estimate(name, of, first.value - second.value, None, None, None)
    return Estimate(name, of, found.value, found.low, found.high, found.p)


def _gap(quantity: Quantity, one: Measures) -> float:
    return quantity.value(one) - (quantity.less(one) if quantity.less else 0.0)


def _in_layer(place: int, number: int) -> Quantity:
    return Quantity(f"{INSTRUCTED.name}: layer {number}", lambda m: m.asked[place], lambda m: m.instead[place])
