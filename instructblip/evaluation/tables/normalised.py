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

HEADER = ("experiment", "model", "seeds", "recipe", "prompt", "metric", "score", *FLOORS, TOLD, "normalised")
TITLE = f"Held-out scores between floor and ceiling in a {HEADING}"
TRAINED, OTHER = "a training template", "no training template"
NOTES = (
    "Normalised: (score - best floor) / (scene told - best floor). Floors: the best constant answer of what was tuned "
    "on, the language model without the picture, and another picture of the same answer type; above, the language "
    "model that is told the scene. All are of the instruction-tuned run where that was asked.",
    f"The endpoint is the mean of the normalised scores; sets with less than {ROOM} between floor and ceiling are left "
    "out and named.",
)


def sheet(found: Sequence[Result]) -> Sheet | None:
    """Runs whose controls were asked, seeds of one recipe of training together; None without any."""
    synthetic = [result for result in found if result.synthetic]
    groups: dict[tuple[str, str], list[tuple[Result, Endpoint]]] = {}
    for run in synthetic:
        measured = endpoint(run, synthetic)
        if any(each.controls for each in measured.standings):
            groups.setdefault((" + ".join(run.experiment) or run.name, run.recipe), []).append((run, measured))
    lines = [line for (experiment, _), runs in sorted(groups.items()) for line in _lines(experiment, runs)]
    return Sheet(TITLE, HEADER, lines, NOTES) if lines else None


def _lines(experiment: str, runs: Sequence[tuple[Result, Endpoint]]) -> list[list[str]]:
    model = str(runs[0][0].config.get("model", {}).get("name", ""))
    names = [experiment, model, ", ".join(str(run.seed) for run, _ in sorted(runs, key=lambda pair: pair[0].seed))]
    by_set: dict[str, list[Standing]] = {}
    for _, measured in runs:
        for each in measured.standings:
            by_set.setdefault(each.recipe, []).append(each)
    lines = [[*names, recipe, *_line(own)] for recipe, own in by_set.items()]
    kinds = {recipe: _kind(own[0]) for recipe, own in by_set.items()}
    for kind in (TRAINED, OTHER):
        chosen = [recipe for recipe in by_set if kinds[recipe] == kind]
        values = [value for _, each in runs for name in chosen if (value := each.values.get(name)) is not None]
        if values:
            lines.append([*names, f"mean of {len(chosen)} sets", kind, *[""] * 6, _number(statistics.fmean(values))])
    return [*lines, [*names, *_endpoint([measured for _, measured in runs])]]


def _line(own: Sequence[Standing]) -> list[str]:
    """Prompt, metric, score, controls, normalised; of several seeds means."""
    controls = [_mean([each.control(name) for each in own]) for name in CONTROLS]
    facts = own[0].score.facts
    values = [_mean([each.value for each in own]), *controls, _mean([each.normalised for each in own])]
    return [_kind(own[0]), facts["metric"], *map(_number, values)]


def _endpoint(measured: Sequence[Endpoint]) -> list[str]:
    lacking = sorted({name for each in measured for name in each.lacking})
    cramped = sorted({name for each in measured for name in each.cramped})
    value = _mean([each.value for each in measured])
    said = [f"needs {', '.join(lacking)}"] if lacking else []
    said += [f"no room in {', '.join(cramped)}"] if cramped else []
    sets = sorted({len(each.values) for each in measured})
    return [f"endpoint over {' or '.join(map(str, sets))} sets", "; ".join(said), *[""] * 6, _number(value)]


def _kind(standing: Standing) -> str:
    return TRAINED if is_template(str(standing.score.facts.get("wording", "")), standing.run) else OTHER


def _mean(values: Sequence[float | None]) -> float | None:
    """Of all, or None where one is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
