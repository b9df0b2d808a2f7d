"""The question sets as a study uses them: wordings, training splits, protocols, question generation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.choices import Purpose
from instructblip.data.lineage import refuse_leaks
from instructblip.data.readers.registry import read
from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample, question_generation
from instructblip.data.steps import drawn_answer
from instructblip.data.templates import fill, render, templates
from instructblip.protocols import Mode
from instructblip.recipes import ResponseText
from tests.conftest import composed

HELD_IN = ("vqav2", "okvqa", "aokvqa", "ocrvqa")
HELD_OUT = ("vizwiz", "gqa", "textvqa")
VIEWS = ("vqav2_vqg", "okvqa_vqg", "aokvqa_vqg")
QUESTION = "Question: {question} Short answer:"
CHOSEN = Sample(
    "aokvqa/train_choices/q", "aokvqa", "train_choices", Form.multiple_choice, (MediaRef("coco", "1"),),
    {"question": "What {waits}?"}, (Answer("cab"),), Candidates(("cab", "train", "a {b}", "cab")), 3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split", "metric"),
    [
        ("vqav2", "val", "vqa_accuracy:evalai"),
        ("okvqa", "test", "vqa_accuracy:official_2017"),
        ("aokvqa", "val", "aokvqa_direct_answer"),
        ("ocrvqa", "test", "ocrvqa_accuracy"),
        ("vizwiz", "val", "vizwiz_accuracy"),
        ("gqa", "testdev", "gqa_accuracy"),
        ("textvqa", "val", "textvqa_accuracy"),
    ],
)
def test_open_answers_are_generated_as_lavis_generates_them(name: str, split: str, metric: str) -> None:
    protocol = recipes.load(name).protocol("paper")
    assert (protocol.split, protocol.metric, protocol.mode) == (split, metric, Mode.generate)
    settings = protocol.decoding
    assert (settings.num_beams, settings.max_new_tokens, settings.repetition_penalty) == (5, 10, 1.5)
    assert settings.length_penalty == {"causal": 0.0, "encoder_decoder": -1.0}


@pytest.mark.parametrize("name", [*HELD_IN, *HELD_OUT])
def test_prompts_are_appendix_e(name: str) -> None:
    ocr = "[[OCR tokens: {ocr}. ]]" if name in ("ocrvqa", "textvqa") else ""
    assert recipes.load(name).protocol("paper").prompts["paper"] == ocr + QUESTION


def test_lavis_sends_okvqas_bare_question() -> None:
    assert recipes.load("okvqa").protocol("lavis").prompts["lavis"] == "{question}"


def test_aokvqa_ranks_its_choices_in_a_variant() -> None:
    recipe = recipes.load("aokvqa")
    protocol = recipe.protocol("paper", "multiple_choice")
    assert (protocol.mode, protocol.metric, protocol.vocabulary) == (Mode.rank, "multiple_choice", None)
    prompt = "Question: What {waits}? Options: (a) cab (b) train (c) a {b} (d) cab. Short answer:"
    assert fill(protocol.prompts["paper"], CHOSEN) == prompt
    assert recipe.protocol("paper").mode is Mode.generate


def test_aokvqa_trains_on_direct_answers_or_on_choices() -> None:
    recipe = recipes.load("aokvqa")
    assert recipe.training_split({}) == "train"
    assert recipe.training_split({"aokvqa": "train_choices"}) == "train_choices"
    assert (recipe.wordings("train"), recipe.wordings("train_choices")) == ("vqa", "choice")
    (wording,) = templates("choice")
    example = render(CHOSEN, wording, CHOSEN.answers[0], ResponseText.raw)
    assert "(c) a {b} (d) cab. Short answer:" in example.instruction and example.response == "cab"


@pytest.mark.parametrize("name", [*HELD_IN, *HELD_OUT])
def test_no_training_split_reads_a_file_or_rows_that_are_evaluated(name: str) -> None:
    recipe = recipes.load(name)
    evaluated = recipe.split(recipe.protocol("paper").split)
    for split in map(recipe.split, recipe.train):
        assert not set(split.files) & set(evaluated.files) or not set(split.select) & set(evaluated.select)


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_train_splits_are_for_fine_tuning(name: str) -> None:
    partition = composed("prepare", "recipe=all").partition
    recipe = recipes.load(name)
    assert recipe.train == ["train"] and recipe.sampling is None
    refuse_leaks([recipe], partition, Purpose.finetune, allow_leak=False)
    with pytest.raises(ValueError, match=f"{name} not held-in"):
        refuse_leaks([recipe], partition, Purpose.instruction_tune, allow_leak=False)


def test_question_generation_has_the_six_wordings() -> None:
    texts = [template.text for template in templates("vqg")]
    assert len(set(texts)) == 6 and all(text.count("{answer}") == 1 for text in texts)
    assert "generate an question" in texts[5] and [text.endswith("Question:") for text in texts].count(True) == 4


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_their_parents_rows(name: str) -> None:
    view, parent = recipes.load(name), recipes.load(name.removesuffix("_vqg"))
    assert view.table == parent.name and view.splits == parent.splits and view.pool == parent.pool
    assert view.train == ["train"] and view.wordings("train") == "vqg" and view.evaluation is None
    assert view.sampling == parent.sampling and view.data_version() == parent.data_version()
    partition = composed("prepare", "recipe=all").partition
    assert name in partition.held_in and parent.name in partition.held_in


def test_question_and_answer_of_a_generated_question_are_of_one_record(tmp_path: Path) -> None:
    recipe = recipes.load("okvqa")
    questions, annotations = recipe.split("train").files
    (tmp_path / "okvqa").mkdir()
    rows = [{"image_id": n, "question": f"Question {n}?", "question_id": n} for n in range(12)]
    (tmp_path / "okvqa" / questions).write_text(json.dumps({"questions": rows}))
    given = [
        {"question_id": n, "image_id": n, "answer_type": "other", "question_type": "one", "answers": [
            {"raw_answer": f"raw {n} {k}", "answer": f"stem {n} {k}", "answer_confidence": "yes"} for k in range(3)
        ]} for n in reversed(range(12))
    ]  # fmt: skip
    (tmp_path / "okvqa" / annotations).write_text(json.dumps({"annotations": given}))
    for number, parent in enumerate(read(recipe, "train", tmp_path)):
        assert isinstance(parent, Sample)
        sample = question_generation(parent, "okvqa_vqg")
        for wording in templates("vqg"):
            example = render(sample, wording, drawn_answer(sample, 0.5), ResponseText.raw)
            assert example.response == f"Question {number}?" and f"raw {number} 1" in example.instruction
            assert f"Question {number}?" not in example.instruction
        assert sample.media == parent.media and sample.media[0].key == str(number)


@pytest.mark.parametrize(("u", "said"), [(0.0, "ride"), (0.29, "ride"), (0.31, "bus"), (0.41, "cab"), (0.99, "cab")])
def test_the_answer_is_drawn_by_votes(u: float, said: str) -> None:
    answers = (Answer("ride", 3), Answer("bus", 1), Answer("cab", 6))
    sample = Sample("a/b/1", "a", "b", Form.vqg, (MediaRef("coco", "1"),), {"question": "?"}, answers)
    assert drawn_answer(sample, u).text == said


@pytest.mark.parametrize(("name", "variant"), [("gqa", "normalized"), ("ocrvqa", "whole_titles")])
def test_a_variant_changes_what_it_names_and_nothing_else(name: str, variant: str) -> None:
    recipe = recipes.load(name)
    default, other = vars(recipe.protocol("paper")), vars(recipe.protocol("paper", variant))
    changed = {key for key in default if default[key] != other[key]} - {"variants"}
    assert changed == ({"metric"} if name == "gqa" else {"decoding"})
    assert other["decoding"].num_beams == 5 and other["decoding"].length_penalty == default["decoding"].length_penalty


def test_an_uncounted_split_is_said_to_be_so() -> None:
    recipe = recipes.load("ocrvqa")
    assert {name: split.rows for name, split in recipe.splits.items()} == {"train": 801673, "val": None, "test": None}
