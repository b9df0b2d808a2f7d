"""What a checkpoint's trainable weights have ever seen, what they must never see, and what a score may claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instructblip import recipes as recipe_files
from instructblip.choices import Purpose
from instructblip.config.data import PartitionConfig
from instructblip.data.evaluated import read_by_name
from instructblip.recipes import Recipe

PUBLISHED = "published"  # in place of a manifest: which rows somebody else drew is not known
REMEDY = "or allow_leak=true (its lineage says so, and tables print its cells as ineligible)"


@dataclass(frozen=True)
class Seen:
    """Samples drawn from one table: the first `drawn` places of its endless permutation."""

    recipe: str
    split: str
    manifest: str  # sha256 of the table
    rows: int
    drawn: int

    def __str__(self) -> str:
        return f"{self.recipe}/{self.split} ({self.drawn:,} samples)"


def refuse_leaks(
    recipes: Sequence[Recipe],
    partition: PartitionConfig,
    purpose: Purpose,
    allow_leak: bool,
    splits: Mapping[str, str] | None = None,
) -> None:
    """Raises ValueError when the training recipes may not be trained on for this purpose.

    Instruction tuning sees held-in recipes only (paper, section 2.1); fine-tuning may name any recipe with a
    training split. Neither sees a file that is scored. `splits` are those chosen for a recipe instead of its first.
    `allow_leak` lets the run go on; its lineage still says what it saw.
    """
    for recipe in recipes:
        chosen = (splits or {}).get(recipe.name)
        if chosen in recipe.evaluated():
            raise ValueError(
                f"{recipe.name}/{chosen} is scored, so it is never trained on; take one of {', '.join(recipe.train)}"
            )
        refuse_evaluated(recipe, read_by_name(recipe, recipe.training_split(splits or {})), allow_leak)
    outside = [recipe.name for recipe in recipes if _outside(recipe, partition)]
    if purpose is Purpose.instruction_tune and outside and not allow_leak:
        raise ValueError(
            f"{', '.join(outside)} not held-in in this partition, so zero-shot scores would be worth nothing: take it "
            f"out of the mixture, set purpose=finetune, {REMEDY}"
        )


def refuse_evaluated(recipe: Recipe, evaluated: Sequence[str], allow_leak: bool) -> None:
    """Raises ValueError naming the evaluated splits whose files a training split reads."""
    if evaluated and not allow_leak:
        raise ValueError(
            f"the training split of {recipe.name} reads files of {', '.join(evaluated)}, which is scored: "
            f"take it out of the mixture, {REMEDY}"
        )


def refuse_inherited(
    begun: Mapping[str, Sequence[Seen]], partition: PartitionConfig, purpose: Purpose, allow_leak: bool
) -> None:
    """Raises ValueError when weights a run starts from (path -> lineage) have seen what this run may not.

    For instruction tuning that is every recipe that is not held-in; for fine-tuning, evaluated splits.
    """
    held_in = {_table(name) for name in partition.held_in}
    for path, lineage in begun.items():
        wrong = [
            str(seen)
            for seen in lineage
            if _is_evaluated(seen) or (purpose is Purpose.instruction_tune and _table(seen.recipe) not in held_in)
            if seen.drawn
        ]
        if wrong and not allow_leak:
            raise ValueError(
                f"model.init={path} has seen {', '.join(wrong)}, which purpose={purpose.value} must not inherit in "
                f"this partition: start from other weights, {REMEDY}"
            )


def ineligible(
    lineage: Sequence[Seen], recipe: Recipe, split: str, manifest: str | None = None, zero_shot: bool = True
) -> str | None:
    """Why a score of these weights on recipe/split may not stand in a table; None when it may.

    The split itself must be unseen, under whatever name its table (`manifest`) was drawn from. A zero-shot score
    also asks that no other split of the dataset was seen, nor a view of it.
    """
    wrong = [
        seen
        for seen in lineage
        if seen.drawn
        and (
            (_table(seen.recipe) == recipe.table and (zero_shot or seen.split == split))
            or (manifest is not None and seen.manifest == manifest)
        )
    ]
    return f"has seen {', '.join(map(str, wrong))}" if wrong else None


def published(recipes: Sequence[Recipe]) -> list[Seen]:
    """What weights that others trained on these recipes have seen: the training splits, each once through."""
    seen = []
    for recipe in recipes:
        split = recipe.training_split({})
        rows = recipe.split(split).rows or (recipe.sampling.size if recipe.sampling else 0)
        seen.append(Seen(recipe.name, split, PUBLISHED, rows, rows))
    return seen


def merge(inherited: Sequence[Seen], own: Sequence[Seen]) -> list[Seen]:
    """The lineage of a checkpoint that began with `inherited`; draws from the same table add up."""
    total: dict[tuple[str, str, str], Seen] = {}
    for seen in [*inherited, *own]:
        key = (seen.recipe, seen.split, seen.manifest)
        drawn = seen.drawn + (total[key].drawn if key in total else 0)
        total[key] = Seen(seen.recipe, seen.split, seen.manifest, seen.rows, drawn)
    return list(total.values())


def _outside(recipe: Recipe, partition: PartitionConfig) -> bool:
    """Whether it is not held in; a view of a held-out recipe is not, whatever its name."""
    return recipe.name not in partition.held_in or recipe.table in partition.held_out


def _is_evaluated(seen: Seen) -> bool:
    return seen.recipe in recipe_files.names() and seen.split in recipe_files.load(_table(seen.recipe)).evaluated()


def _table(name: str) -> str:
    """The recipe whose rows a recipe of this project shows; a user's own is not known here and stands for itself."""
    return recipe_files.load(name).table if name in recipe_files.names() else name
