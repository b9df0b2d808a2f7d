"""How much the scores of a run depend on the prompt: wordings it was trained with, and apart from them all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf

from instructblip import recipes
from instructblip.config.data import MixtureConfig, PartitionConfig, WordingConfig
from instructblip.data.shares import members
from instructblip.data.templates import wordings
from instructblip.evaluation.sensitivity import Sensitivity, part_of, sensitivities
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result
from instructblip.evaluation.tables.synthetic import HEADING
from instructblip.multitask import OCR

T = TypeVar("T")
HEADER = ("run", "recipe", "metric", "wordings", "mean", "best", "worst", "the paper's prompt", "n", "note")
NEEDS = "Needs `python evaluate.py run=RUN recipe=RECIPE prompts=all`."
NOTE = "Trained with: this run, or the weights it began from, read the wording in training. The two are never averaged."


def sheets(found: Sequence[Result]) -> list[Sheet]:
    """Runs on real data, and apart from them those in an embedded world."""
    made = [_sheet("Prompt sensitivity", [each for each in found if not each.synthetic])]
    embedded = [each for each in found if each.synthetic]
    return [*made, _sheet(f"Prompt sensitivity in a {HEADING}", embedded)] if embedded else made


def _sheet(title: str, found: Sequence[Result]) -> Sheet:
    lines = [line for result in found for line in _lines(result)]
    return Sheet(title, HEADER, lines, [NOTE] if lines else [NEEDS])


def _lines(result: Result) -> list[list[str]]:
    facts = [score.facts for score in result.scores if score.facts["images"] == "own"]
    limits = sorted({each["limit"] for each in facts}, key=lambda limit: (limit is not None, limit))
    lines: list[list[str]] = []
    for limit in limits:
        note = "" if limit is None else f"first {limit} only"
        groups = sensitivities(each for each in facts if each["limit"] == limit and "wording" in each)
        trained = trained_with(result) if groups else None
        for group in groups:
            lines += [[*line, str(group.n), note] for line in _kinds(result, group, trained)]
    return lines


def _kinds(result: Result, group: Sensitivity, trained: frozenset[str] | None) -> list[list[str]]:
    """A line of the wordings that were trained with, and one of the others."""
    kinds = {name: _kind(text, trained) for name, text in group.texts.items()}
    paper = "" if group.paper is None else f"{group.paper:.4f} ({kinds['paper']})"
    recipe = ":".join(filter(None, [group.recipe, group.variant]))
    lines = []
    for kind in sorted(set(kinds.values()), reverse=True):
        part = part_of(group, {name for name, own in kinds.items() if own == kind})
        ends = [
            f"{part.values[name]:.4f} {name}: {part.texts[name]}" if name else "" for name in (part.best, part.worst)
        ]
        mean = "undefined" if part.mean is None else f"{part.mean:.4f}"
        lines.append([result.name, recipe, part.metric, f"{len(part.values)} {kind}", mean, *ends, paper])
    return lines


def _kind(text: str, trained: frozenset[str] | None) -> str:
    if trained is None:
        return "of unknown training"
    return "trained with" if text in trained else "not trained with"


def trained_with(result: Result) -> frozenset[str] | None:
    """Every wording that the weights read in training; None where nothing says what they were trained on."""
    seen = result.lineage("") if result.config else None
    if seen is None:
        return None
    mixture = _typed(MixtureConfig, result.config["mixture"])
    own, _ = members(mixture, _typed(PartitionConfig, result.config["partition"]).groups())
    wording = _typed(WordingConfig, result.config.get("wording", {}))
    names = {recipe.name for recipe in own}
    read = [wordings(recipe, recipe.training_split(mixture.splits), wording) for recipe in own]
    for each in seen:  # before this run, as the published models: in all the templates
        if each.drawn and each.recipe in recipes.names() and each.recipe not in names:
            read.append(wordings(recipes.load(each.recipe), each.split, WordingConfig()))
    return frozenset(text for family in read for template in family for text in (template.text, OCR + template.text))


def _typed(kind: type[T], facts: Any) -> T:
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), facts))
    assert isinstance(found, kind)
    return found
