"""What the runs of the embedded world say of its declared hypotheses: confirmed, absent, or not run yet."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from instructblip.evaluation.declaration import (
    DECLARED,
    Declaration,
    How,
    Hypothesis,
    Measure,
    Part,
    confirming,
    load,
)
from instructblip.evaluation.runs import read_rows
from instructblip.evaluation.statistics import DRAWS, Difference, holm, paired_seeds
from instructblip.evaluation.tables.endpoint import FLOORS, Standing, endpoint
from instructblip.evaluation.tables.measuring import items, paired_items
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result

HEADER = ("hypothesis", "comparison", "seeds", "difference", "95 % interval", "p", "verdict")
SETS = ("recipe", "seeds", "least lead over a floor", "floor", "95 % interval over seeds", "over items", "p (Holm)")
Runs = Mapping[str, Mapping[int, Result]]  # arm -> seed -> run


@dataclass(frozen=True)
class Outcome:
    """Of one part: what was compared over which seeds; `shown` None until all of them are there."""

    comparison: str
    seeds: tuple[int, ...]
    wanted: int
    found: Difference | None = None
    shown: bool | None = None
    said: str = ""


def sheets(found: Sequence[Result], draws: int = DRAWS) -> list[Sheet]:
    """The declaration with its verdicts, and the sets of H2 once its runs are there; none without synthetic runs."""
    synthetic = [result for result in found if result.synthetic]
    if not synthetic:
        return []
    declared = load()
    runs = confirming(declared, synthetic)
    values = {
        Measure.endpoint: {name: _endpoints(declared, name, runs, synthetic) for name in declared.arms},
        Measure.loss: {name: _losses(runs[name]) for name in declared.arms},
    }
    lines, sets = [], []
    for hypothesis in declared.hypotheses:
        outcomes = []
        for part in hypothesis.parts:
            if part.how is How.floors:
                outcome, of_sets = _floors(declared, part, runs, synthetic, draws)
                sets.append(Sheet(f"{hypothesis.name}: every set against its floors", SETS, of_sets))
            else:
                outcome = _difference(declared, part, values[part.of])
            outcomes.append(outcome)
        lines += list(_lines(hypothesis, outcomes))
    frozen = "" if declared.frozen else " The settings are not frozen yet: no run confirms anything."
    notes = [
        f"Endpoint: {declared.endpoint}. alpha {declared.alpha}, two-sided, paired over seeds.{frozen}",
        "Whether the declaration came before the runs is checked by `python experiments/declared.py`.",
    ]
    return [Sheet(f"{declared.title} ({DECLARED.name})", HEADER, lines, notes), *(each for each in sets if each.lines)]


def verdicts(found: Sequence[Result], draws: int = DRAWS) -> list[str]:
    """A line for each hypothesis; none without synthetic runs."""
    lines = [line for sheet in sheets(found, draws)[:1] for line in sheet.lines]
    return [f"{name}, {claim}: {said}" for name, claim, *_, said in lines if name]


def verdict(hypothesis: Hypothesis, outcomes: Sequence[Outcome]) -> str:
    """`confirmed` where every part is shown, `absent` once one that is complete is not."""
    missing = [f"{len(each.seeds)} of {each.wanted} seeds" for each in outcomes if each.shown is None]
    if hypothesis.estimated:
        return f"not run yet ({', '.join(missing)})" if missing else "estimated"
    if any(each.shown is False for each in outcomes):
        return "absent"
    return f"not run yet ({', '.join(missing)})" if missing else "confirmed"


def _lines(hypothesis: Hypothesis, outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    yield [hypothesis.name, hypothesis.claim, "", "", "", "", verdict(hypothesis, outcomes)]
    for each in outcomes:
        found, told = each.found, ["", "", ""]
        if found is not None:
            told = [f"{found.value:+.3f}", f"{found.low:+.3f} to {found.high:+.3f}", f"{found.p:.4f}"]
        yield ["", each.comparison, f"{len(each.seeds)} of {each.wanted}", *told, each.said]


def _endpoints(declared: Declaration, arm: str, runs: Runs, found: Sequence[Result]) -> dict[int, float]:
    measured = {seed: endpoint(run, found, declared.arms[arm].prompts) for seed, run in runs[arm].items()}
    return {seed: each.value for seed, each in measured.items() if each.value is not None}


def _losses(runs: Mapping[int, Result]) -> dict[int, float]:
    """Of the last quarter of the steps that were logged."""
    rows = {seed: read_rows(run.folder / "metrics.csv") for seed, run in runs.items()}
    logged = {seed: [float(loss) for row in own if (loss := row["train/loss"])] for seed, own in rows.items()}
    return {seed: statistics.fmean(losses[-max(1, len(losses) // 4) :]) for seed, losses in logged.items() if losses}


def _difference(declared: Declaration, part: Part, values: Mapping[str, Mapping[int, float]]) -> Outcome:
    """Nothing is tested before all declared seeds are there."""
    wanted = declared.seeds_of(part)
    pairs = [(part.first, part.second)] + ([(part.wide_first, part.wide_second)] if part.how is How.gap else [])
    if part.of is Measure.loss:  # what is worse has more of it
        pairs = [(second, first) for first, second in pairs]
    comparison = f"{part.of.value}: " + ", less ".join(f"{one} less {other}" for one, other in pairs)
    there = [seed for seed in wanted if all(seed in values[arm] for pair in pairs for arm in pair)]
    if len(there) < len(wanted):
        return Outcome(comparison, tuple(there), len(wanted))
    gaps = [{seed: values[one][seed] - values[other][seed] for seed in there} for one, other in pairs]
    found = paired_seeds(gaps[0], gaps[1] if len(gaps) > 1 else dict.fromkeys(there, 0.0))
    shown = found is not None and found.value > 0 and found.p < declared.alpha
    return Outcome(comparison, tuple(there), len(wanted), found, shown)


def _floors(
    declared: Declaration, part: Part, runs: Runs, found: Sequence[Result], draws: int
) -> tuple[Outcome, list[list[str]]]:
    """Per set the floor it is least above, tested over seeds; the largest p of the three is the set's."""
    measured = {seed: endpoint(run, found) for seed, run in sorted(runs[part.first].items()) if seed in declared.seeds}
    there = tuple(seed for seed, each in measured.items() if not each.lacking)
    comparison = f"{part.first} against every floor, {part.at_least} sets at least"
    if len(there) < len(declared.seeds):
        return Outcome(comparison, there, len(declared.seeds)), []
    sets: dict[str, dict[int, Standing]] = {}
    for seed in there:
        for each in measured[seed].standings:
            sets.setdefault(each.recipe, {})[seed] = each
    worst = {recipe: _worst(own) for recipe, own in sets.items()}
    corrected = dict(zip(worst, holm([_above(one) for one, _ in worst.values()]), strict=True))
    won = [recipe for recipe, p in corrected.items() if p < declared.alpha]
    lines = [
        [
            recipe, str(len(there)), f"{one.value:+.3f}", floor, f"{one.low:+.3f} to {one.high:+.3f}",
            _over_items(sets[recipe][there[0]], floor, draws), f"{corrected[recipe]:.4f}",
        ]
        for recipe, (one, floor) in worst.items()
    ]  # fmt: skip
    said = f"above every floor on {len(won)} of {len(sets)} sets"
    return Outcome(comparison, there, len(declared.seeds), shown=len(won) >= part.at_least, said=said), lines


def _worst(own: Mapping[int, Standing]) -> tuple[Difference, str]:
    """The floor that the score is least surely above, over seeds."""
    found = {}
    for name in FLOORS:
        floors = {seed: value for seed, each in own.items() if (value := each.control(name)) is not None}
        difference = paired_seeds({seed: each.value for seed, each in own.items()}, floors)
        assert difference is not None, f"{name} of {len(floors)} seeds"
        found[name] = difference
    name = max(found, key=lambda name: (_above(found[name]), -found[name].value))
    return found[name], name


def _above(difference: Difference) -> float:
    """p of being above; 1 for what is not."""
    return difference.p if difference.value > 0 else 1.0


def _over_items(standing: Standing, floor: str, draws: int) -> str:
    """Of the first seed alone."""
    try:
        other = items(*standing.controls[floor])
        found = paired_items(items(standing.run, standing.score), other, draws)
    except ValueError as error:
        return f"not at hand: {error}"
    return "" if found is None else f"{found.low:+.3f} to {found.high:+.3f}, seed {standing.run.seed}"
