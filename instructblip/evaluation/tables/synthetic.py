"""Runs on an embedded world: tables of their own, without published values."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from instructblip.evaluation.runs import note_of
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result

HEADING = "synthetic world"


def sheet(found: Sequence[Result]) -> Sheet | None:
    """Every score of these runs, seeds of one recipe of training together; None when there is no such run."""
    groups: dict[tuple[str, str], dict[int, Result]] = {}
    for result in found:
        if result.synthetic:
            groups.setdefault((" + ".join(result.experiment), result.recipe), {})[result.seed] = result
    lines = []
    for (experiment, _), runs in groups.items():
        scores: dict[tuple[str, str, str, str], list[tuple[float, int, object]]] = {}
        for run in runs.values():
            for score in run.scores:
                facts = score.facts
                names = [facts["recipe"], *filter(None, [facts.get("variant")])]
                key = (":".join(map(str, names)), facts["profile"], facts["metric"], note_of(facts))
                if facts["value"] is not None:
                    scores.setdefault(key, []).append((facts["value"], facts["n"], facts.get("interval")))
        seeds = ", ".join(map(str, sorted(runs)))
        for key in sorted(scores):
            values = [value for value, _, _ in scores[key]]
            lines.append(
                [
                    experiment,
                    seeds,
                    *key[:3],
                    f"{statistics.fmean(values):.4f}",
                    _spread(scores[key]),
                    str(scores[key][0][1]),
                    key[3],
                ]
            )
    if not lines:
        return None
    header = ("experiment", "seeds", "recipe", "prompts", "metric", "value", "interval or range", "n", "note")
    return Sheet(f"Runs in a {HEADING}", header, lines, ["Nothing here compares with a published number."])


def _spread(scores: Sequence[tuple[float, int, object]]) -> str:
    if len(scores) > 1:
        values = [value for value, _, _ in scores]
        return f"{min(values):.4f} to {max(values):.4f} over {len(values)} seeds"
    bounds = scores[0][2]
    return f"{bounds[0]:.4f} to {bounds[1]:.4f} over items" if isinstance(bounds, list) else ""
