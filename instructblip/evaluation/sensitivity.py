"""How much a score depends on the wording of the question: mean, best and worst of all wordings, and the paper's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from instructblip.evaluation.measures import LOWER_IS_BETTER
from instructblip.evaluation.metrics import mean

SAME = ("recipe", "variant", "split", "metric", "images", "limit", "llm_limit", "checkpoint", "manifest")
PAPER = "paper"


@dataclass(frozen=True)
class Sensitivity:
    """One model on one split in several wordings; `values` by profile or template id."""

    recipe: str
    variant: str | None
    metric: str
    n: int
    texts: dict[str, str]  # each wording, by the same names as its value
    values: dict[str, float]  # defined ones alone
    mean: float | None
    best: str  # names among the values; empty without any
    worst: str
    paper: float | None  # of the paper's own prompt


def sensitivities(scores: Iterable[Mapping[str, Any]]) -> list[Sensitivity]:
    """Of the contents of scores.json files those that differ in nothing but the wording, where there are several."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for facts in scores:
        groups.setdefault(tuple(facts[name] for name in SAME), []).append(facts)
    return [_sensitivity(group) for group in groups.values() if len({facts["wording"] for facts in group}) > 1]


def sensitivity_table(found: Iterable[Sensitivity]) -> Table:
    table = Table(title="by wording")
    for name in ("recipe", "metric", "wordings", "mean", "best", "worst", "paper's", "n"):
        table.add_column(name, overflow="fold")
    for each in found:
        recipe = each.recipe if each.variant is None else f"{each.recipe} ({each.variant})"
        ends = [f"{each.values[name]:.4f} {name}" if name else "undefined" for name in (each.best, each.worst)]
        figures = [_figure(each.mean), *ends, _figure(each.paper), str(each.n)]
        table.add_row(recipe, each.metric, str(len(each.values)), *figures)
    return table


def _sensitivity(group: list[Mapping[str, Any]]) -> Sensitivity:
    """Of two names of one wording the first counts."""
    wordings: dict[str, Mapping[str, Any]] = {}
    for facts in sorted(group, key=lambda facts: facts["profile"] != PAPER):
        wordings.setdefault(facts["wording"], facts)
    values = {facts["profile"]: facts["value"] for facts in wordings.values() if facts["value"] is not None}
    texts = {facts["profile"]: wording for wording, facts in wordings.items()}
    first = group[0]
    return _ordered(
        Sensitivity(first["recipe"], first["variant"], first["metric"], first["n"], texts, values, None, "", "", None)
    )


def part_of(found: Sensitivity, names: Collection[str]) -> Sensitivity:
    """The same of some of its wordings."""
    kept = {name: value for name, value in found.values.items() if name in names}
    return _ordered(replace(found, values=kept))


def _ordered(found: Sensitivity) -> Sensitivity:
    values = found.values
    order = sorted(values, key=lambda name: values[name], reverse=found.metric not in LOWER_IS_BETTER)
    ends = (order[0], order[-1]) if order else ("", "")
    return replace(found, mean=mean(list(values.values())), best=ends[0], worst=ends[1], paper=values.get(PAPER))


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
