"""What a checkpoint's trainable weights have ever seen, and what they must never see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instructblip.choices import Purpose
from instructblip.config import PartitionConfig
from instructblip.recipes import Recipe


@dataclass(frozen=True)
class Seen:
    """Samples drawn from one table: the first `drawn` places of its endless permutation."""

    recipe: str
    split: str
    manifest: str  # sha256 of the table
    rows: int
    drawn: int


def refuse_leaks(recipes: Sequence[Recipe], partition: PartitionConfig, purpose: Purpose, allow_leak: bool) -> None:
    """Raises ValueError when the training recipes may not be trained on for this purpose.

    Instruction tuning sees held-in recipes only (paper, section 2.1); fine-tuning may name any recipe with a
    training split. `allow_leak` lets the run go on; its lineage still says what it saw.
    """
    for recipe in recipes:
        recipe.training_split({})
    outside = [recipe.name for recipe in recipes if recipe.name not in partition.held_in]
    if purpose is Purpose.instruction_tune and outside and not allow_leak:
        raise ValueError(
            f"{', '.join(outside)} not held-in in this partition, so zero-shot scores would be worth nothing: take it "
            f"out of the mixture, set purpose=finetune, or allow_leak=true (tables then print its cells as ineligible)"
        )


def merge(inherited: Sequence[Seen], own: Sequence[Seen]) -> list[Seen]:
    """The lineage of a checkpoint that began with `inherited`; draws from the same table add up."""
    total: dict[tuple[str, str, str], Seen] = {}
    for seen in [*inherited, *own]:
        key = (seen.recipe, seen.split, seen.manifest)
        drawn = seen.drawn + (total[key].drawn if key in total else 0)
        total[key] = Seen(seen.recipe, seen.split, seen.manifest, seen.rows, drawn)
    return list(total.values())
