"""Lineage adds up over stages, and a purpose refuses what it may not see."""

from __future__ import annotations

import pytest

from instructblip import recipes
from instructblip.choices import Purpose
from instructblip.config import PartitionConfig
from instructblip.data.lineage import Seen, merge, refuse_leaks

PARTITION = PartitionConfig(held_in=["coco_caption", "vqav2"], held_out=["vsr"])
VSR, VQA = recipes.load("vsr"), recipes.load("vqav2")


def test_instruction_tuning_refuses_held_out() -> None:
    refuse_leaks([VQA], PARTITION, Purpose.instruction_tune, allow_leak=False)
    with pytest.raises(ValueError, match=r"vsr not held-in.*purpose=finetune"):
        refuse_leaks([VQA, VSR], PARTITION, Purpose.instruction_tune, allow_leak=False)
    refuse_leaks([VSR], PARTITION, Purpose.finetune, allow_leak=False)
    refuse_leaks([VSR], PARTITION, Purpose.instruction_tune, allow_leak=True)


def test_a_recipe_without_training_split_is_refused() -> None:
    evaluated = recipes.Recipe(**{**vars(VSR), "train": None})
    with pytest.raises(ValueError, match="no training split"):
        refuse_leaks([evaluated], PARTITION, Purpose.finetune, allow_leak=True)


def test_draws_from_the_same_table_add_up() -> None:
    first = [Seen("a", "train", "x", 10, 5), Seen("b", "train", "y", 10, 1)]
    second = [Seen("a", "train", "x", 10, 7), Seen("a", "train", "changed", 10, 2)]
    assert merge(first, second) == [
        Seen("a", "train", "x", 10, 12), Seen("b", "train", "y", 10, 1), Seen("a", "train", "changed", 10, 2)
    ]  # fmt: skip
