"""Dialogues: every turn a Sample of its own, with the turns before it and no others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.readers.base import Context
from instructblip.data.readers.dialogues import llava
from instructblip.data.sample import Form, Sample
from instructblip.data.tables import from_row, to_row
from instructblip.data.templates import fill, render, templates
from instructblip.recipes import ResponseText
from tests.fixtures import real_tree
from tests.fixtures.raw_files import items, write

LLAVA = {"conversation": "conversation_58k", "detail": "detail_23k", "reasoning": "complex_reasoning_77k"}


def record(*said: str, image: str = "000000000009.jpg", speakers: tuple[str, ...] = ("human", "gpt")) -> dict[str, Any]:
    turns = [{"from": speakers[i % len(speakers)], "value": text} for i, text in enumerate(said)]
    return {"id": image[:-4], "image": image, "conversations": turns}


def conversations(raw: Path, *records: dict[str, Any]) -> None:
    write(raw / "llava/conversation_58k.json", list(records))


def test_every_turn_has_the_turns_before_it(tmp_path: Path) -> None:
    conversations(tmp_path, record("<image>\nWhat is it?", "A bus.", "Why red?", "Paint.", "Go on.", "No."))
    samples, dropped = items("llava_conversation", "train", tmp_path)
    assert [sample.uid for sample in samples] == [f"llava_conversation/train/0#{turn}" for turn in range(3)]
    assert [sample.slots["instruction"] for sample in samples] == ["What is it?", "Why red?", "Go on."]
    assert [sample.slots["history"] for sample in samples] == [
        (),
        (("What is it?", "A bus."),),
        (("What is it?", "A bus."), ("Why red?", "Paint.")),
    ]
    assert [sample.answers[0].text for sample in samples] == ["A bus.", "Paint.", "No."] and not dropped
    assert {sample.group for sample in samples} == {"0"} and {sample.media[0].key for sample in samples} == {"9"}


def test_first_turns_are_the_other_policy(tmp_path: Path) -> None:
    conversations(tmp_path, record("One?", "1", "Two?", "2"), record("<image>\nThree?", "3"))
    samples, _ = items("llava_conversation", "first_turns", tmp_path)
    assert [(sample.uid, sample.slots["instruction"], sample.slots["history"]) for sample in samples] == [
        ("llava_conversation/first_turns/0#0", "One?", ()),
        ("llava_conversation/first_turns/1#0", "Three?", ()),
    ]
    recipe = recipes.load("llava_conversation")
    assert recipe.training_split({}) == "train"
    assert recipe.training_split({recipe.name: "first_turns"}) == "first_turns"


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("<image>What is it?", "What is it?"),
        ("Look:\n<image>\nWhat is it?", "Look: What is it?"),
        ("What\n\nis it? ", "What\n\nis it? "),
    ],
)
def test_the_marker_of_the_picture_goes_wherever_it_stands(tmp_path: Path, marked: str, plain: str) -> None:
    conversations(tmp_path, record(marked, "A <image> tag.", "And <image>?", "Yes."))
    first, second = items("llava_conversation", "train", tmp_path)[0]
    assert first.slots["instruction"] == plain
    assert first.answers[0].text == "A <image> tag." and second.slots["instruction"] == "And <image>?", (
        "the first turn's only"
    )


def test_ids_repeat_so_rows_are_numbered(tmp_path: Path) -> None:
    conversations(tmp_path, record("One?", "1"), record("Two?", "2"))
    assert [sample.uid[-3:] for sample in items("llava_conversation", "train", tmp_path)[0]] == ["0#0", "1#0"]


def test_records_that_are_no_dialogue_are_named(tmp_path: Path) -> None:
    conversations(
        tmp_path,
        record("One?", "1", "Two?"),
        record("One?", "1", speakers=("gpt", "human")),
        record(),
        record("<image>", "1", "Two?", "2"),
        record("One?", "1"),
    )
    samples, dropped = items("llava_conversation", "train", tmp_path)
    assert [sample.uid.split("/")[-1] for sample in samples] == ["3#1", "4#0"]
    no_turns = "turns are not human and gpt in turn"
    assert {uid.split("/")[-1]: reason for uid, reason in dropped.items()} == {
        "0": no_turns, "1": no_turns, "2": no_turns, "3#0": "empty turn",
    }  # fmt: skip


def test_llava_is_worded_as_it_is(tmp_path: Path) -> None:
    conversations(tmp_path, record("What is it?\n<image>", "A Bus.", "Say\nmore.", "It is RED!\n\nVery."))
    first, second = items("llava_conversation", "train", tmp_path)[0]
    (wording,) = templates("instruction")
    assert render(first, wording, first.answers[0], ResponseText.raw).instruction == "What is it?"
    example = render(second, wording, second.answers[0], recipes.load("llava_conversation").response)
    assert example.instruction == "Question: What is it? Answer: A Bus. Say\nmore."
    assert example.response == "It is RED!\n\nVery."


def visdial_dialog(image: int, turns: list[tuple[int, int]], gold: int = 1) -> dict[str, Any]:
    """Rounds of (question, answer) with 100 options, the answer at `gold`."""
    dialog = []
    for question, answer in turns:
        options = [0] * 100
        options[gold] = answer
        dialog.append({"question": question, "answer": answer, "answer_options": options, "gt_index": gold})
    return {"image_id": image, "caption": "a man riding", "dialog": dialog}


def visdial_file(raw: Path, dialogs: list[dict[str, Any]], split: str = "val") -> None:
    questions = ["is it sunny", "is he old", "what color"]
    answers = ["no", "yes", "no, it's cloudy", "no"]
    data = {"questions": questions, "answers": answers, "dialogs": dialogs}
    write(raw / f"visdial/visdial_1.0_{split}.json", {"split": split, "version": "1.0", "data": data})


def test_every_round_keeps_its_own_question_and_history(tmp_path: Path) -> None:
    """LAVIS appends one dict for all rounds of a dialogue, so that all of them are the last."""
    visdial_file(tmp_path, [visdial_dialog(185565, [(2, 1), (0, 2), (1, 3)])])
    samples, dropped = items("visdial", "val", tmp_path)
    assert [sample.uid for sample in samples] == [f"visdial/val/185565#0{number}" for number in (1, 2, 3)]
    assert [sample.slots["question"] for sample in samples] == ["what color", "is it sunny", "is he old"]
    assert [sample.slots["history"] for sample in samples] == [
        (),
        (("what color", "yes"),),
        (("what color", "yes"), ("is it sunny", "no, it's cloudy")),
    ]
    assert [sample.answers[0].text for sample in samples] == ["yes", "no, it's cloudy", "no"] and not dropped
    assert {sample.slots["caption"] for sample in samples} == {"a man riding"}
    assert {(sample.group, sample.media[0].pool, sample.media[0].key) for sample in samples} == {
        ("185565", "visdial2018", "185565")
    }


def test_options_are_resolved_in_order_and_may_repeat(tmp_path: Path) -> None:
    visdial_file(tmp_path, [visdial_dialog(7, [(0, 2)], gold=99)])
    (sample,) = items("visdial", "val", tmp_path)[0]
    assert sample.candidates and sample.gold == 99 and sample.candidates.relevance == ()
    assert Counter(sample.candidates.items) == {"no": 99, "no, it's cloudy": 1}
    assert sample.candidates.items[sample.gold] == sample.answers[0].text


def test_relevance_belongs_to_the_one_round_it_was_given_for(tmp_path: Path) -> None:
    visdial_file(tmp_path, [visdial_dialog(7, [(0, 1), (1, 2), (2, 3)]), visdial_dialog(8, [(0, 1)])])
    graded = [0.0, 0.4, *[0.0] * 98]
    rows = [
        {"image_id": 7, "round_id": 2, "gt_relevance": graded},
        {"image_id": 8, "round_id": 5, "gt_relevance": graded},
    ]
    write(tmp_path / "visdial/visdial_1.0_val_dense_annotations.json", rows)
    samples, dropped = items("visdial", "val", tmp_path)
    assert [bool(sample.candidates and sample.candidates.relevance) for sample in samples] == [
        False,
        True,
        False,
        False,
    ]
    assert samples[1].candidates and samples[1].candidates.relevance == tuple(graded), "round_id counts from 1"
    assert dropped == {"visdial/val/8#05": "relevance of a round that is not there"}
    write(tmp_path / "visdial/visdial_1.0_val_dense_annotations.json", [{**rows[0], "gt_relevance": [1.0]}])
    with pytest.raises(ValueError, match=r"visdial/val/7#02 has 100 options, but the relevance of 1"):
        items("visdial", "val", tmp_path)


def test_the_test_split_has_options_for_the_last_round_only(tmp_path: Path) -> None:
    dialogs = [visdial_dialog(image, [(0, 1), (1, 2), (2, 3)][:rounds]) for image, rounds in ((1, 1), (2, 3))]
    for dialog in dialogs:
        for turn in dialog["dialog"][:-1]:
            del turn["answer_options"], turn["gt_index"]
        del dialog["dialog"][-1]["answer"], dialog["dialog"][-1]["gt_index"]
    visdial_file(tmp_path, dialogs, "test")
    samples, dropped = items("visdial", "test", tmp_path)
    assert [(sample.uid, len(sample.slots["history"])) for sample in samples] == [
        ("visdial/test/1#01", 0),
        ("visdial/test/2#03", 2),
    ]
    assert all(sample.gold is None and not sample.answers for sample in samples) and not dropped
    visdial_file(tmp_path, dialogs, "val")
    with pytest.raises(ValueError, match=r"visdial_1.0_val.json is not in the layout"):
        items("visdial", "val", tmp_path)


def test_the_last_rounds_alone(tmp_path: Path) -> None:
    visdial_file(tmp_path, [visdial_dialog(1, [(0, 1), (1, 2)]), visdial_dialog(2, [(2, 1)])])
    samples, _ = items("visdial", "val_last", tmp_path)
    assert [(sample.uid, len(sample.slots["history"])) for sample in samples] == [
        ("visdial/val_last/1#02", 1),
        ("visdial/val_last/2#01", 0),
    ]


def test_a_gold_option_that_is_not_the_answer_is_named(tmp_path: Path) -> None:
    dialog = visdial_dialog(1, [(0, 1), (1, 2)])
    dialog["dialog"][0]["gt_index"] = 5
    visdial_file(tmp_path, [dialog])
    samples, dropped = items("visdial", "val", tmp_path)
    assert [sample.uid for sample in samples] == ["visdial/val/1#02"]
    assert dropped == {"visdial/val/1#01": "the option at gt_index is not the answer"}


@pytest.mark.parametrize("name", ["question", "answer", "gt_index"])
def test_a_place_before_the_first_is_refused(tmp_path: Path, name: str) -> None:
    dialog = visdial_dialog(1, [(0, 1), (1, 2)])
    dialog["dialog"][0][name] = -1
    visdial_file(tmp_path, [dialog])
    with pytest.raises(ValueError, match="place -1"):
        items("visdial", "val", tmp_path)


def test_questions_get_their_mark_in_the_wording_and_not_in_the_data(tmp_path: Path) -> None:
    visdial_file(tmp_path, [visdial_dialog(1, [(0, 1), (1, 2)])])
    first, second = items("visdial", "val", tmp_path)[0]
    recipe = recipes.load("visdial")
    paper = recipe.protocol("paper").prompts["paper"]
    assert fill(paper, first) == "Question: is it sunny? Short answer:"
    asked = "Dialog history: Question: is it sunny? Answer: yes\n Question: is he old? Short answer:"
    assert fill(paper, second) == asked
    with_caption = 'This image has the caption "a man riding". '
    assert fill(recipe.protocol("paper", "caption").prompts["paper"], second) == with_caption + asked
    assert fill(recipe.protocol("lavis").prompts["lavis"], second) == (
        with_caption + "dialog history: Question: is it sunny? Answer: yes\nQuestion: is he old? Short answer:"
    )
    assert fill(recipe.protocol("paper", "no_history").prompts["paper"], second) == "Question: is he old? Short answer:"
    assert (
        recipe.protocol("paper", "last_round").split == "val_last" and recipe.protocol("paper").metric == "visdial:mrr"
    )


def test_a_dialogue_survives_its_table(tmp_path: Path) -> None:
    visdial_file(tmp_path, [visdial_dialog(1, [(0, 1), (1, 2)])])
    for sample in items("visdial", "val", tmp_path)[0]:
        assert from_row(to_row(sample)) == sample


@pytest.mark.parametrize(
    ("recipe", "split", "value"),
    [
        ("llava_detail", "train", [{"image": "000000000009.jpg"}]),
        (
            "llava_detail",
            "train",
            [{"image": "000000000009.jpg", "conversations": [{"from": "human"}, {"from": "gpt"}]}],
        ),
        ("llava_detail", "train", {"data": []}),
        ("visdial", "val", {"data": {"dialogs": []}}),
        ("visdial", "val", {"data": {"questions": [], "answers": [], "dialogs": [visdial_dialog(1, [(0, 0)])]}}),
    ],
)
def test_a_foreign_layout_is_refused_with_its_file(tmp_path: Path, recipe: str, split: str, value: Any) -> None:
    facts = recipes.load(recipe)
    write(tmp_path / facts.source / facts.split(split).files[0], value)
    with pytest.raises(ValueError, match=f"{facts.split(split).files[0]} is not in the layout"):
        items(recipe, split, tmp_path)


@pytest.mark.parametrize("kind", sorted(LLAVA))
def test_real_llava_files_are_read_without_a_drop(real: Path, tmp_path: Path, kind: str) -> None:
    real_tree.link(real, tmp_path)
    samples, dropped = items(f"llava_{kind}", "train", tmp_path)
    assert samples and not dropped and len({sample.uid for sample in samples}) == len(samples)
    assert not any("<image>" in sample.slots["instruction"] for sample in samples)
    unrolled = [sample for sample in samples if sample.slots["history"]]
    assert bool(unrolled) == (kind == "conversation")
    assert all(sample.media[0].pool == "coco" and sample.media[0].key.isdigit() for sample in samples)


def test_real_reasoning_with_pictures_is_read_without_a_drop(real: Path) -> None:
    file = real / "llava_instruct_150k/complex_reasoning_77k_with_images.json"
    samples = list(llava([file], Context("llava_reasoning", "train", "coco", Form.instruct, ())))
    assert len(samples) == 34 and all(isinstance(sample, Sample) for sample in samples)


def test_real_dialogues_are_read_without_a_drop(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path)
    samples, dropped = items("visdial", "val", tmp_path)
    assert len(samples) == 970 and not dropped
    dialogues = Counter(sample.group for sample in samples)
    assert set(dialogues.values()) == {10}
    graded = Counter(sample.group for sample in samples if sample.candidates and sample.candidates.relevance)
    assert graded.keys() == dialogues.keys() and set(graded.values()) == {1}
    for sample in samples:
        assert sample.candidates and sample.gold is not None and len(sample.candidates.items) == 100
        assert len(sample.slots["history"]) == sample.meta["round"] - 1
    assert len({sample.slots["question"] for sample in samples}) > 500, "not ten times the last one"
    assert len(items("visdial", "val_last", tmp_path)[0]) == 97
