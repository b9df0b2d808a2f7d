"""Lineage adds up over stages, a purpose refuses what it may not see, and a score knows what it may not claim."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.choices import Purpose
from instructblip.config.data import PartitionConfig
from instructblip.config.training import TrainConfig
from instructblip.data.lineage import Seen, ineligible, merge, refuse_inherited, refuse_leaks
from instructblip.training.datamodule import training_set
from tests.conftest import World

Tiny = Callable[..., TrainConfig]
PARTITION = PartitionConfig(held_in=["coco_caption", "vqav2", "mine", "my_vsr"], held_out=["vsr"])
VSR, VQA = recipes.load("vsr"), recipes.load("vqav2")
OWN = "name: mine\nsource: {source}\npool: coco\nsplits: {{train: {{reader: {reader}, files: ['{file}']}}}}\n"
OWN += "train: [train]\ntemplates: instruction\nsampling: {{size: 400000, unit: rows}}\n"


def tune(*chosen: recipes.Recipe, allow_leak: bool = False, splits: dict[str, str] | None = None) -> None:
    refuse_leaks(chosen, PARTITION, Purpose.instruction_tune, allow_leak, splits)


def user_recipe(folder: Path, source: str, file: str, reader: str = "own") -> str:
    """A recipe file of the user's; its path."""
    path = folder / "mine.yaml"
    path.write_text(OWN.format(source=source, file=file, reader=reader))
    return str(path)


def test_instruction_tuning_refuses_held_out() -> None:
    tune(VQA)
    with pytest.raises(ValueError, match=r"vsr not held-in.*purpose=finetune"):
        tune(VQA, VSR)
    refuse_leaks([VSR], PARTITION, Purpose.finetune, allow_leak=False)
    tune(VSR, allow_leak=True)


def test_a_recipe_without_training_split_is_refused() -> None:
    evaluated = recipes.Recipe(**{**vars(VSR), "train": None})
    with pytest.raises(ValueError, match="no training split"):
        refuse_leaks([evaluated], PARTITION, Purpose.finetune, allow_leak=True)


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_mixture_that_chooses_an_evaluated_split_is_refused(purpose: Purpose) -> None:
    with pytest.raises(ValueError, match="vqav2/val is scored, so it is never trained on; take one of train"):
        refuse_leaks([VQA], PARTITION, purpose, allow_leak=True, splits={"vqav2": "val"})


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize(
    ("source", "file", "names"),
    [
        ("vsr", "data/splits/zeroshot/test.jsonl", "vsr/test"),
        ("vsr/data", "../data/splits/zeroshot/test.jsonl", "vsr/test"),
        ("vsr", "data/splits/zeroshot/*.jsonl", "vsr/test"),
        ("vsr", "v1/data/splits/zeroshot/test.jsonl", "vsr/test_v1"),
        ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/val"),
        ("coco", "dataset_coco.json", "coco_caption/test"),
        ("iconqa/iconqa_data", "iconqa/*/choose_txt/*/data.json", "iconqa/test"),
    ],
)
def test_a_users_recipe_over_an_evaluated_file_is_refused(
    tmp_path: Path, purpose: Purpose, source: str, file: str, names: str
) -> None:
    mine = recipes.load(user_recipe(tmp_path, source, file))
    with pytest.raises(ValueError, match=f"training split of mine reads files of .*{names}"):
        refuse_leaks([mine], PARTITION, purpose, allow_leak=False)
    refuse_leaks([mine], PARTITION, purpose, allow_leak=True)


@pytest.mark.parametrize("file", ["data/splits/zeroshot/train.jsonl", "rows.jsonl"])
def test_a_users_recipe_over_other_files_is_not(tmp_path: Path, file: str) -> None:
    tune(recipes.load(user_recipe(tmp_path, "vsr", file)))


def test_the_same_file_may_serve_where_the_selections_are_apart() -> None:
    """The Karpathy file holds every split; a mapping that all splits read tells nothing."""
    coco = recipes.load("coco_caption")
    tune(coco, splits={"coco_caption": "train_restval"})
    msvd = recipes.Recipe(**{**vars(recipes.load("msvd_qa")), "name": "mine", "train": ["train"]})
    assert "youtube_mapping.txt" in msvd.splits["train"].files
    tune(msvd)


def test_a_view_of_a_held_out_recipe_is_held_out_whatever_its_name() -> None:
    view = recipes.Recipe(**{**vars(VSR), "name": "my_vsr", "view_of": "vsr", "evaluation": None})
    with pytest.raises(ValueError, match="my_vsr not held-in"):
        tune(view)


def test_a_copy_of_an_evaluated_file_is_found_by_its_content(tiny: Tiny, world: World, tmp_path: Path) -> None:
    """Prepared under a name of the user's, from a copy under another name; with allow_leak the lineage names it."""
    mine = user_recipe(tmp_path, "mine", "copied.jsonl", "vsr")
    data = tmp_path / "data"
    shutil.copytree(world.data, data)
    shutil.copytree(data / "tables/vsr", data / "tables/mine")
    (data / "tables/mine/test.arrow").rename(data / "tables/mine/train.arrow")
    manifest = json.loads((data / "tables/mine/manifest.json").read_text())
    entry = manifest["splits"]["test"]
    (digest,) = entry["sources"].values()
    manifest["splits"] = {"train": {**entry, "sources": {"copied.jsonl": digest}}}
    (data / "tables/mine/manifest.json").write_text(json.dumps(manifest))
    options = [f"paths.data={data}", f"mixture.recipes=[vqav2,'{mine}']", "partition.held_in=[vqav2,mine]"]
    with pytest.raises(ValueError, match="mine reads files of vsr/test, which is scored"):
        training_set(tiny(*options))
    opened = training_set(tiny(*options, "allow_leak=true"))
    seen = {f"{seen.recipe}/{seen.split}": seen.drawn for seen in opened.lineage(10)}
    assert set(seen) == {"vqav2/train", "mine/train", "vsr/test"} and seen["mine/train"] == seen["vsr/test"] > 0
    assert "has seen vsr/test" in str(ineligible(opened.lineage(10), VSR, "test"))


def test_instruction_tuning_inherits_nothing_held_out() -> None:
    clean, leaky = Seen("vqav2", "train", "x", 10, 5), Seen("vsr", "train", "y", 10, 96)
    begun = {"runs/a/model.safetensors": [clean], "runs/b/model.safetensors": [clean, leaky]}
    with pytest.raises(
        ValueError, match=r"init=runs/b/model\.safetensors has seen vsr/train \(96 samples\), which"
    ) as error:
        refuse_inherited(begun, PARTITION, Purpose.instruction_tune, allow_leak=False)
    assert "vqav2" not in str(error.value) and "runs/a" not in str(error.value)
    refuse_inherited(begun, PARTITION, Purpose.finetune, allow_leak=False)
    refuse_inherited(begun, PARTITION, Purpose.instruction_tune, allow_leak=True)
    refuse_inherited({"x": [Seen("vsr", "train", "y", 10, 0)]}, PARTITION, Purpose.instruction_tune, allow_leak=False)


@pytest.mark.parametrize("purpose", list(Purpose))
def test_an_evaluated_split_is_inherited_by_nobody(purpose: Purpose) -> None:
    begun = {"a.safetensors": [Seen("vqav2", "val", "x", 10, 5)]}
    with pytest.raises(ValueError, match=r"has seen vqav2/val \(5 samples\)"):
        refuse_inherited(begun, PARTITION, purpose, allow_leak=False)


def test_a_run_reads_the_lineage_beside_the_weights_it_starts_from(tiny: Tiny, tmp_path: Path) -> None:
    state = {"step": 7, "base": "x", "lineage": [vars(Seen("vsr", "train", "y", 10, 96))]}
    (tmp_path / "step-00000007").mkdir()
    (tmp_path / "step-00000007/state.json").write_text(json.dumps(state))
    init = f"model.init={tmp_path}/step-00000007/model.safetensors"
    with pytest.raises(ValueError, match=r"step-00000007/model\.safetensors has seen vsr/train \(96 samples\)"):
        training_set(tiny(init))
    assert training_set(tiny(init, "allow_leak=true"))
    assert training_set(tiny(init, "purpose=finetune"))


def test_draws_from_the_same_table_add_up() -> None:
    first = [Seen("a", "train", "x", 10, 5), Seen("b", "train", "y", 10, 1)]
    second = [Seen("a", "train", "x", 10, 7), Seen("a", "train", "changed", 10, 2)]
    assert merge(first, second) == [
        Seen("a", "train", "x", 10, 12), Seen("b", "train", "y", 10, 1), Seen("a", "train", "changed", 10, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "zero_shot", "eligible"),
    [
        (Seen("vqav2", "train", "x", 10, 5), True, True),
        (Seen("vsr", "train", "x", 10, 5), True, False),
        (Seen("vsr", "train", "x", 10, 5), False, True),
        (Seen("vsr", "train", "x", 10, 0), True, True),
        (Seen("vsr", "test", "x", 10, 5), False, False),
        (Seen("mine", "train", "the table of vsr/test", 10, 5), False, False),
    ],
)
def test_what_was_seen_decides_what_a_score_may_claim(seen: Seen, zero_shot: bool, eligible: bool) -> None:
    reason = ineligible([seen], VSR, "test", "the table of vsr/test", zero_shot)
    assert (reason is None) == eligible and (eligible or str(seen) in str(reason))


def test_a_view_makes_its_parents_scores_ineligible() -> None:
    seen = [Seen("okvqa_vqg", "train", "x", 10, 5)]
    assert ineligible(seen, recipes.load("okvqa"), "test") == "has seen okvqa_vqg/train (5 samples)"
    assert ineligible(seen, recipes.load("okvqa"), "test", zero_shot=False) is None
