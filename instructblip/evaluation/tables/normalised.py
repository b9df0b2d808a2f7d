"""Every held-out score of an embedded world beside its floors and ceiling, raw and normalised, and the endpoint."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from instructblip.evaluation.tables.endpoint import (
    CONTROLS,
    FLOORS,
    ROOM,
    TOLD,
    Endpoint,
    Standing,
    endpoint,
    is_template,
)  # fmt: skip
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result
from instructblip.evaluation.tables.synthetic import HEADING

HEADER = ("set", "score", *FLOORS, TOLD, "normalised")
TITLE = f"Held-out scores between floor and ceiling in a {HEADING}"
MARK = "*"  # behind the name of a set
NOTE = (
    "Normalised: (score - best floor) / (told - best floor). Floors: the best constant answer of what was tuned "
    "on, the language model without the picture, and another picture of the same answer type; above, the language "
    "model that is told the scene. All are of the instruction-tuned run where that was asked. The endpoint is the mean "
    f"of the normalised scores; sets with less than {ROOM} between floor and ceiling are left out and named. {MARK}: "
    "asked in the wording of a training template, as in the paper."
)


def sheets(found: Sequence[Result]) -> list[Sheet]:
    """One of each recipe of training whose controls were asked, its seeds together."""
    synthetic = [result for result in found if result.synthetic]
    groups: dict[tuple[str, str], list[tuple[Result, Endpoint]]] = {}
    for run in synthetic:
        measured = endpoint(run, synthetic)
        if any(each.controls for each in measured.standings):
            groups.setdefault((" + ".join(run.experiment) or run.name, run.recipe), []).append((run, measured))
    return [_sheet(experiment, runs) for (experiment, _), runs in sorted(groups.items())]


def _sheet(experiment: str, runs: Sequence[tuple[Result, Endpoint]]) -> Sheet:
    model = str(runs[0][0].config.get("model", {}).get("name", ""))
    seeds = ", ".join(map(str, sorted(run.seed for run, _ in runs)))
    by_set: dict[str, list[Standing]] = {}
    for _, measured in runs:
        for each in measured.standings:
            by_set.setdefault(each.recipe, []).append(each)
    lines = [_line(own) for own in by_set.values()]
    for kind, marked in ((f"mean, {MARK}", True), ("mean, others", False)):
        chosen = [recipe for recipe, own in by_set.items() if _asked_as_trained(own[0]) is marked]
        values = [value for _, each in runs for name in chosen if (value := each.values.get(name)) is not None]
        if values:
            lines.append(_end(kind, statistics.fmean(values)))
    ends = [measured for _, measured in runs]
    lines.append(_end("endpoint", _mean([each.value for each in ends])))
    notes = [*_left_out(ends), NOTE]
    return Sheet(f"{TITLE}: {experiment}, {model}, seed {seeds}", HEADER, lines, notes, numbers=True)


def _end(name: str, value: float | None) -> list[str]:
    return [name, *[""] * (len(HEADER) - 2), _number(value)]


def _line(own: Sequence[Standing]) -> list[str]:
    """Score, controls, normalised; of several seeds means."""
    controls = [_mean([each.control(name) for each in own]) for name in CONTROLS]
    values = [_mean([each.value for each in own]), *controls, _mean([each.normalised for each in own])]
    return [own[0].recipe + MARK * _asked_as_trained(own[0]), *map(_number, values)]


def _left_out(measured: Sequence[Endpoint]) -> list[str]:
    """What of the endpoint is not there, and why."""
    lacking = sorted({name for each in measured for name in each.lacking})
    cramped = sorted({name for each in measured for name in each.cramped})
    said = [f"No endpoint without a score and all controls of {', '.join(lacking)}."] if lacking else []
    return said + ([f"No room between floor and ceiling in {', '.join(cramped)}."] if cramped else [])


def _asked_as_trained(standing: Standing) -> bool:
    return is_template(str(standing.score.facts.get("wording", "")), standing.run)


def _mean(values: Sequence[float | None]) -> float | None:
    """Of all, or None where one is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
