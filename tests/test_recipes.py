"""Every recipe file: valid, complete, and all it names exists."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from instructblip import recipes
from instructblip.data.preparing import hub
from instructblip.data.readers.mirrors import MIRRORS
from instructblip.data.readers.registry import READERS
from instructblip.data.sample import Form
from instructblip.data.templates import templates
from instructblip.evaluation.measures import metric
from instructblip.evaluation.submissions import SUBMISSIONS
from instructblip.multitask import OCR
from instructblip.pools import Download
from instructblip.protocols import Decoding, Evaluation, Mode
from instructblip.recipes import Mirror, Split
from tests.conftest import ROOT, composed

NAMES = recipes.names()
assert {"coco_caption", "vqav2", "vsr"} <= set(NAMES)
WRITTEN_OUT = {"num_beams", "max_new_tokens", "min_new_tokens", "repetition_penalty", "length_penalty"}  # of decoding


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_names_exists(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.task in recipes.TASKS
    assert {split.reader for split in recipe.splits.values()} <= set(READERS)
    assert (recipes.RECIPES / "pools" / f"{recipe.pool}.yaml").is_file()
    assert {mirror.reader for mirror in recipe.mirrors.values()} <= {*MIRRORS, hub.OFFICIAL}
    assert set(recipe.mirrors) <= set(recipe.splits) and (recipe.mirrors or recipe.no_mirror)
    if recipe.templates:
        assert templates(recipe.templates)
    if recipe.evaluation:
        assert recipe.evaluation.prompts.keys() == {"paper", "lavis"}
        for variant in (None, *recipe.evaluation.variants):
            protocol = recipe.protocol("paper", variant)
            assert callable(metric(protocol.metric)) and protocol.submission in (None, *SUBMISSIONS)
            assert not protocol.templates or templates(protocol.templates)
            assert protocol.mode is Mode.rank or set(protocol.decoding.length_penalty) == {"causal", "encoder_decoder"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_short_and_in_the_partition(name: str) -> None:
    path = recipes.RECIPES / f"{name}.yaml"
    assert len(path.read_text().splitlines()) <= 50
    partition = composed("prepare", "recipe=all").partition
    assert name in partition.held_in + partition.held_out


@pytest.mark.parametrize("name", NAMES)
def test_keys_stand_in_the_order_of_their_fields(name: str) -> None:
    """All recipes read alike; decoding is written out, so that a page is enough to repeat it."""
    content = yaml.safe_load((recipes.RECIPES / f"{name}.yaml").read_text())
    parts = [(recipes.Recipe, content), *((Split, split) for split in content.get("splits", {}).values())]
    parts += [(Mirror, mirror) for mirror in content.get("mirrors", {}).values()]
    parts += [(Download, download) for download in content.get("downloads", ())]
    if evaluation := content.get("evaluation"):
        parts += [(Evaluation, each) for each in (evaluation, *evaluation.get("variants", {}).values())]
        if evaluation["mode"] == "generate":
            parts.append((Decoding, evaluation["decoding"]))
            assert set(evaluation["decoding"]) >= WRITTEN_OUT
    for kind, part in parts:
        order = [field.name for field in fields(kind)]
        assert list(part) == sorted(part, key=order.index), part


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_has_the_prompts_of_the_multitask_baselines(name: str) -> None:
    """Figure 4: `plain` is the paper's instruction but for captions; identifiers name no held-out dataset."""
    recipe, held_in = recipes.load(name), OmegaConf.load(ROOT / "conf/partition/paper.yaml").held_in
    if recipe.evaluation is None:
        return
    for variant in (None, *recipe.evaluation.variants):
        own = recipe.protocol("paper", variant)
        plain = recipe.protocol("plain", variant).prompts["plain"]
        named = recipe.protocol("dataset_names", variant).prompts["dataset_names"].removeprefix(OCR)
        assert plain == (OCR if recipe.form is Form.caption else own.prompts["paper"])
        assert (":" in named.split("]")[0]) == (name in held_in) and named.startswith("[")
        assert ("{options}" in named) == ("{options}" in own.prompts["paper"])
        assert own == recipe.protocol("paper", variant), "a profile that was asked for stays out of the others"
    with pytest.raises(ValueError, match="dataset_names"):
        recipe.protocol("dataset_name")


def test_paper_templates_are_all_there() -> None:
    assert [len(templates(family)) for family in ("caption", "vqa")] == [13, 10]


def test_groups_and_lists() -> None:
    partition = composed("prepare", "recipe=all").partition
    assert len(partition.held_in) == len(partition.held_out) == 13
    groups = partition.groups()
    names, absent = recipes.select("held_in", groups)
    assert set(names) | set(absent) == set(partition.held_in) and not set(names) & set(absent)
    assert recipes.select(["vsr", "vqav2", "vsr"], groups) == (["vsr", "vqav2"], [])
    assert recipes.select("all", groups)[0] == list(NAMES)


@pytest.mark.parametrize(("name", "hint"), [("vqa2", "vqav2"), ("held_inn", "held_in")])
def test_unknown_recipe_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{hint}'"):
        recipes.select(name, {"held_in": [], "held_out": []})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("form: classify", "form: classifier", "classifier"),
        ("name: vsr", "name: vsr2", "name is 'vsr2'"),
        ("task: visual reasoning", "task: reasoning", "unknown task"),
        ("split: test", "split: train", "both trained on and evaluated"),
        ("access: open", "acces: open", "acces"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "vsr.yaml"
    path.write_text((ROOT / "data_recipes/vsr.yaml").read_text().replace(old, new))
    with pytest.raises(ValueError, match=said) as refused:
        recipes.load(str(path))
    assert str(path) in str(refused.value)


def test_wording_does_not_change_the_data_version() -> None:
    recipe = recipes.load("vqav2")
    version = recipe.data_version()
    recipe.templates = "caption"
    assert recipe.data_version() == version
    recipe.splits["train"].rows += 1
    assert recipe.data_version() != version
    recipe.templates, recipe.splits["train"].rows = "vqa", recipe.splits["train"].rows - 1


def test_a_held_out_recipe_needs_no_training_split() -> None:
    scienceqa = recipes.load("scienceqa")
    assert scienceqa.train and recipes.needed_splits(scienceqa, held_out=True) == ["test"]
    assert recipes.needed_splits(scienceqa) == ["train", "test"]
    assert recipes.needed_splits(scienceqa, ["val"]) == ["val"]
    assert recipes.needed_splits(recipes.load("vqav2_vqg")) == ["train"]


def test_a_view_reads_its_parents_tables() -> None:
    view, parent = recipes.load("okvqa_vqg"), recipes.load("okvqa")
    assert view.table == "okvqa" and view.splits == parent.splits and view.pool == parent.pool
    assert view.data_version() == parent.data_version() and view.templates == "vqg" and view.evaluation is None
