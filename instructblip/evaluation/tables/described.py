"""Figure 2, Table 4, Table 5 and Appendix E generated from recipes and partition, beside what the paper prints."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from instructblip import recipes
from instructblip.config.data import PartitionConfig
from instructblip.data.templates import templates
from instructblip.evaluation.tables.published import MEANINGS, TABLES, Certainty
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.files import read_yaml
from instructblip.names import require
from instructblip.recipes import Recipe

AGREES = "agrees"


@dataclass
class Dataset:
    text: str = MISSING  # as the paper has it
    thousands: dict[str, int] = field(default_factory=dict)  # split -> size, rounded down
    unit: str = "rows"
    evaluated: str | None = None  # the split its number is of


@dataclass
class Datasets:
    title: str = MISSING
    source: str = MISSING
    certainty: Certainty = MISSING
    datasets: dict[str, Dataset] = MISSING


@dataclass
class Category:
    held_in: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)


@dataclass
class Categories:
    title: str = MISSING
    source: str = MISSING
    certainty: Certainty = MISSING
    categories: dict[str, Category] = MISSING


@dataclass
class Prompt:
    text: str = MISSING  # {} where something stands
    certainty: Certainty = MISSING


@dataclass
class Wordings:
    title: str = MISSING
    source: str = MISSING
    certainty: Certainty = MISSING
    templates: dict[str, list[str]] = MISSING
    prompts: dict[str, Prompt] = MISSING


def table4(partition: PartitionConfig) -> Sheet:
    path = TABLES / "table4.yaml"
    table = read_yaml(path, Datasets)
    lines = []
    for name, dataset in table.datasets.items():
        require(name, recipes.names(), f"recipe in {path}")
        recipe = recipes.load(name)
        sizes = ", ".join(f"{split} {facts.rows or 'unknown'}" for split, facts in recipe.splits.items())
        side = "held-in" if name in partition.held_in else "held-out" if name in partition.held_out else "neither"
        scored = recipe.evaluation.split if recipe.evaluation else "-"
        lines.append([name, side, recipe.task, dataset.text, sizes, scored, _sizes_agree(recipe, dataset)])
    header = ("dataset", "role", "category", "paper", "splits of the recipe, in rows", "evaluated", "comparison")
    return Sheet(f"{table.title} ({table.source})", header, lines, [f"Paper: {MEANINGS[table.certainty]}."])


def figure2(partition: PartitionConfig) -> Sheet:
    table = read_yaml(TABLES / "figure2.yaml", Categories)
    lines = []
    for task in recipes.TASKS:
        own = {
            side: [
                name for name in getattr(partition, side) if name in recipes.names() and recipes.load(name).task == task
            ]
            for side in ("held_in", "held_out")
        }
        paper = table.categories.get(task, Category())
        other = [
            f"{side} {', '.join(getattr(paper, side)) or 'none'} in the paper"
            for side in own
            if set(own[side]) != set(getattr(paper, side))
        ]
        texts = [", ".join(names) or "-" for names in own.values()]
        lines.append([task, *texts, "yes" if not own["held_in"] else "", "; ".join(other) or AGREES])
    counts = [f"{len(partition.held_in)} datasets", f"{len(partition.held_out)} datasets"]
    lines.append([f"{len(recipes.TASKS)} categories", *counts, f"{sum(line[3] == 'yes' for line in lines)}", ""])
    header = ("category", "held-in", "held-out", "held out whole", "comparison")
    return Sheet(f"{table.title} ({table.source})", header, lines, [f"Paper: {MEANINGS[table.certainty]}."])


def table5() -> list[Sheet]:
    """The training templates, and the zero-shot prompts of Appendix E."""
    table = read_yaml(TABLES / "table5.yaml", Wordings)
    lines = []
    for family, texts in table.templates.items():
        own = [_slotless(template.text) for template in templates(family)]
        lines += [[family, text, AGREES if text in own else "not among the recipes'"] for text in texts]
        lines += [[family, text, "not in the paper"] for text in own if text not in texts]
    wordings = Sheet(f"{table.title} ({table.source})", ("family", "template", "comparison"), lines)
    prompts = []
    for name, prompt in table.prompts.items():
        require(name, recipes.names(), "recipe in table5.yaml")
        evaluation = recipes.load(name).evaluation
        text = evaluation.prompts["paper"] if evaluation else ""
        verdict = AGREES if _slotless(text) == prompt.text else f"differs: {_slotless(text)}"
        known = MEANINGS[prompt.certainty]
        prompts.append([name, prompt.text, known, text, verdict])
    header = ("dataset", "prompt of the paper", "known from", "prompt of the recipe", "comparison")
    note = "[[...]] is left out where its slot is empty (ours)."
    return [wordings, Sheet("Appendix E: prompts of the zero-shot evaluation", header, prompts, [note])]


def _task(name: str) -> str:
    return recipes.load(name).task if name in recipes.names() else ""


def _slotless(text: str) -> str:
    """As the paper prints it: {} for every slot, optional parts always there."""
    return re.sub(r"\{\w+\}", "{}", text.replace("[[", "").replace("]]", ""))


def _sizes_agree(recipe: Recipe, dataset: Dataset) -> str:
    found = [f"the paper counts {dataset.unit}"] if dataset.unit != "rows" else []
    for split, thousands in dataset.thousands.items() if not found else ():
        rows = recipe.splits[split].rows if split in recipe.splits else None
        if rows is None:
            found.append(f"{split}: no official count in the recipe")
        elif abs(rows / 1000 - thousands) >= max(1, thousands / 100):
            found.append(f"{split}: {rows:,}, the paper {thousands}K")
    if dataset.evaluated and recipe.evaluation and recipe.evaluation.split != dataset.evaluated:
        found.append(f"evaluated on {recipe.evaluation.split}, the paper on {dataset.evaluated}")
    return "; ".join(found) or (AGREES if dataset.thousands or dataset.evaluated else "nothing to compare")
