"""Open questions: every annotator's answer as given, each with its own question and picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.preparing.prepare import prepare
from instructblip.data.sample import Answer, Form, Sample
from instructblip.data.tables import from_row, to_row
from tests.conftest import composed
from tests.fixtures import real_tree
from tests.fixtures.raw_files import items, write

TRAIN = ("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json")
VAL = ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")
OKVQA = ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")


def votes(sample: Sample) -> list[tuple[str, int]]:
    return [(answer.text, answer.votes) for answer in sample.answers]


def question(question_id: int, image: int = 9, text: str = "What is this?") -> dict[str, Any]:
    return {"image_id": image, "question": text, "question_id": question_id}


def annotation(question_id: int, texts: list[str], **more: Any) -> dict[str, Any]:
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(texts, 1)]
    facts = {"image_id": 9, "answer_type": "other", "question_type": "what is"}
    return {"question_id": question_id, "answers": answers, **facts, **more}


def vqav2(folder: Path, files: tuple[str, str], questions: list[Any], annotations: list[Any]) -> None:
    write(folder / "vqav2" / files[0], {"questions": questions})
    write(folder / "vqav2" / files[1], {"annotations": annotations})


def test_vqa_keeps_votes_and_raw_text(tmp_path: Path) -> None:
    given = ["net", "netting", "net", "Net", "none"] * 2
    vqav2(tmp_path, VAL, [question(9000), question(9001)], [annotation(9000, given), annotation(7, given)])
    (sample,), drops = items("vqav2", "val", tmp_path)
    assert sample.uid == "vqav2/val/9000" and sample.slots == {"question": "What is this?"}
    assert votes(sample) == [("net", 4), ("netting", 2), ("Net", 2), ("none", 2)]
    assert all(len(answer.confidence) == answer.votes and answer.text_alt is None for answer in sample.answers)
    assert sample.media[0].pool == "coco" and sample.media[0].key == sample.group == "9"
    assert drops == {"vqav2/val/9001": "question without annotation", "vqav2/val/7": "annotation without question"}


def test_each_question_keeps_its_own_answers_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    ids = list(range(20))
    vqav2(
        tmp_path, VAL, [question(number, image=number, text=f"Question {number}?") for number in ids],
        [annotation(number, [f"answer {number}"] * (number % 3 + 1) + ["other"]) for number in reversed(ids)],
    )  # fmt: skip
    samples, drops = items("vqav2", "val", tmp_path)
    assert len(samples) == 20 and not drops
    for number, sample in enumerate(samples):
        assert (sample.slots["question"], sample.group) == (f"Question {number}?", str(number))
        assert votes(sample) == [(f"answer {number}", number % 3 + 1), ("other", 1)]


@pytest.mark.parametrize("text", ["none", "NA", "null", "nan", "None", "1", "yes"])
def test_answers_that_look_like_nothing_stay_text(tmp_path: Path, text: str) -> None:
    vqav2(tmp_path, VAL, [question(1)], [annotation(1, [text] * 10)])
    (sample,), _ = items("vqav2", "val", tmp_path)
    assert from_row(to_row(sample)).answers == (Answer(text, 10, ("yes",) * 10),)


def test_training_rows_come_from_the_train_files_alone(tmp_path: Path) -> None:
    vqav2(tmp_path, TRAIN, [question(1)], [annotation(1, ["a"])])
    vqav2(tmp_path, VAL, [question(2)], [annotation(2, ["b"])])
    recipe = recipes.load("vqav2")
    samples, _ = items("vqav2", recipe.training_split({}), tmp_path)
    assert [sample.uid for sample in samples] == ["vqav2/train/1"]
    for name in ("vqav2", "okvqa", "vqav2_vqg", "okvqa_vqg"):
        files = [file for split in recipes.load(name).train for file in recipes.load(name).split(split).files]
        assert files and not [file for file in files if "val2014" in file]


def test_a_test_split_has_questions_and_no_answers(tmp_path: Path) -> None:
    write(tmp_path / "vqav2/v2_OpenEnded_mscoco_test2015_questions.json", {"questions": [question(1), question(2)]})
    samples, drops = items("vqav2", "test", tmp_path)
    assert [sample.answers for sample in samples] == [(), ()] and not drops


def test_two_annotations_of_one_question_are_refused(tmp_path: Path) -> None:
    vqav2(tmp_path, VAL, [question(1)], [annotation(1, ["a"]), annotation(1, ["b"])])
    with pytest.raises(ValueError, match=r"2 annotations for 1 question ids"):
        items("vqav2", "val", tmp_path)


def test_a_question_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    vqav2(tmp_path, VAL, [question(1), question(1)], [annotation(1, ["a"])])
    config = composed("prepare", "recipe=vqav2", f"paths.raw={tmp_path}", f"paths.data={tmp_path}/data")
    with pytest.raises(ValueError, match="id vqav2/val/1 occurs twice"):
        prepare(recipes.load("vqav2"), "val", config, progress=lambda rows, _: rows)


def test_okvqa_says_the_raw_answer_and_keeps_the_stemmed_one(tmp_path: Path) -> None:
    given = [("pony tail", "pony tail"), ("running", "run"), ("ran", "run"), ("running", "run"), ("race", "race")]
    answers = [
        {"answer_id": 2 * i + k, "raw_answer": raw, "answer": stem, "answer_confidence": "maybe"}
        for i, (raw, stem) in enumerate(given) for k in (1, 2)
    ]  # fmt: skip
    write(tmp_path / "okvqa" / OKVQA[0], {"questions": [question(516065)]})
    write(tmp_path / "okvqa" / OKVQA[1], {"annotations": [annotation(516065, []) | {"answers": answers}]})
    (sample,), _ = items("okvqa", "test", tmp_path)
    assert votes(sample) == [("pony tail", 2), ("running", 4), ("ran", 2), ("race", 2)]
    assert [answer.text_alt for answer in sample.answers] == ["pony tail", "run", "run", "race"]


def aokvqa_row(**change: Any) -> dict[str, Any]:
    row = {
        "split": "val", "image_id": 299207, "question_id": "22Mex", "question": "Awaiting what?",
        "choices": ["cab", "train", "cab", "delivery"], "correct_choice_idx": 2,
        "direct_answers": ["ride"] * 3 + ["bus"] + ["cab"] * 6, "difficult_direct_answer": True,
        "rationales": ["They hold bags.", "A cab comes.", "No train is near."],
    }  # fmt: skip
    return row | change


def aokvqa(folder: Path, split: str, *rows: dict[str, Any]) -> tuple[list[Sample], dict[str, str]]:
    write(folder / f"aokvqa/aokvqa_v1p0_{split.removesuffix('_choices')}.json", list(rows))
    return items("aokvqa", split, folder)


def test_aokvqa_holds_both_tasks_in_one_sample(tmp_path: Path) -> None:
    (sample,), _ = aokvqa(tmp_path, "val", aokvqa_row())
    assert sample.candidates and sample.candidates.items == ("cab", "train", "cab", "delivery") and sample.gold == 2
    assert votes(sample) == [("ride", 3), ("bus", 1), ("cab", 6)] and sample.form is Form.vqa
    assert sample.meta == {"difficult_direct_answer": True}
    assert (sample.media[0].key, sample.media[0].relpath) == ("299207", "val2017/000000299207.jpg")


def test_rationales_are_nowhere_in_the_sample(tmp_path: Path) -> None:
    (sample,), _ = aokvqa(tmp_path, "val", aokvqa_row())
    assert "They hold bags." not in json.dumps(to_row(sample))


def test_training_on_choices_teaches_the_right_one_only(tmp_path: Path) -> None:
    (sample,), _ = aokvqa(tmp_path, "train_choices", aokvqa_row(split="train"))
    assert votes(sample) == [("cab", 1)] and sample.gold == 2 and sample.form is Form.multiple_choice
    assert sample.uid == "aokvqa/train_choices/22Mex"


def test_lists_in_exports_are_parsed_and_not_run(tmp_path: Path) -> None:
    plain, _ = aokvqa(tmp_path, "val", aokvqa_row())
    text, _ = aokvqa(
        tmp_path, "val", aokvqa_row(**{key: str(aokvqa_row()[key]) for key in ("choices", "direct_answers")})
    )
    assert text == plain
    with pytest.raises(ValueError, match=r"aokvqa/val/22Mex: choices is no list"):
        aokvqa(tmp_path, "val", aokvqa_row(choices=f"open({str(tmp_path / 'ran')!r}, 'w')"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": ["a", "b", "c"]}, "choices should be 4 texts"),
        ({"choices": "('a', 'b', 'c', 'd')"}, "choices should be 4 texts"),
        ({"direct_answers": "['a', 'b']"}, "direct_answers should be 10 texts"),
        ({"direct_answers": [1] * 10}, "direct_answers should be 10 texts"),
    ],
)
def test_lists_of_another_length_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        aokvqa(tmp_path, "val", aokvqa_row(**change))


@pytest.mark.parametrize(
    "unlabelled", [{}, {"correct_choice_idx": -1, "direct_answers": "[]"}, {"correct_choice_idx": None}]
)
def test_aokvqas_test_rows_have_choices_and_no_label(tmp_path: Path, unlabelled: dict[str, Any]) -> None:
    hidden = ("correct_choice_idx", "direct_answers", "rationales")
    row = {key: value for key, value in aokvqa_row(split="test").items() if key not in hidden}
    (sample,), _ = aokvqa(tmp_path, "test", row | unlabelled)
    assert sample.candidates and len(sample.candidates.items) == 4 and sample.gold is None and not sample.answers


def test_a_right_choice_that_is_none_of_the_four_is_counted(tmp_path: Path) -> None:
    samples, drops = aokvqa(tmp_path, "val", aokvqa_row(correct_choice_idx=4))
    assert not samples and drops == {"aokvqa/val/22Mex": "the right choice is none of the four"}


def test_vizwiz_is_named_by_its_picture_and_keeps_what_cannot_be_answered(tmp_path: Path) -> None:
    given = [{"answer": "unanswerable", "answer_confidence": c} for c in ("yes", "no", "maybe")]
    row = {"image": "VizWiz_val_00000000.jpg", "question": "Ok. What?", "answers": given,
           "answer_type": "unanswerable", "answerable": 0}  # fmt: skip
    write(tmp_path / "vizwiz/val.json", [row])
    write(tmp_path / "vizwiz/test.json", [{"image": "VizWiz_test_00000000.jpg", "question": "What?"}])
    (sample,), drops = items("vizwiz", "val", tmp_path)
    assert sample.uid == "vizwiz/val/VizWiz_val_00000000.jpg" and not drops
    assert sample.answers == (Answer("unanswerable", 3, ("yes", "no", "maybe")),)
    assert sample.meta == {"answer_type": "unanswerable", "answerable": 0}
    assert (sample.media[0].key, sample.media[0].relpath) == ("VizWiz_val_00000000", "val/VizWiz_val_00000000.jpg")
    (unlabelled,), _ = items("vizwiz", "test", tmp_path)
    assert not unlabelled.answers and not unlabelled.meta


def gqa_row(**change: Any) -> dict[str, Any]:
    types = {"detailed": "weatherVerify", "semantic": "global", "structural": "verify"}
    row = {"question": "Is it overcast?", "imageId": "n161313", "isBalanced": True, "answer": "no",
           "types": types, "fullAnswer": "No, it is not overcast."}  # fmt: skip
    return row | change


def test_gqa_is_keyed_by_the_question(tmp_path: Path) -> None:
    rows = {"201307251": gqa_row(), "0042": gqa_row(imageId="42")}
    write(tmp_path / "gqa/questions1.2/testdev_balanced_questions.json", rows)
    samples, drops = items("gqa", "testdev", tmp_path)
    assert [sample.uid for sample in samples] == ["gqa/testdev/201307251", "gqa/testdev/0042"] and not drops
    assert votes(samples[0]) == [("no", 1)] and samples[0].meta["types"]["structural"] == "verify"
    assert (samples[0].media[0].key, samples[0].media[0].relpath) == ("n161313", "images/n161313.jpg")


def test_the_whole_set_under_a_balanced_name_is_refused_by_its_count(tmp_path: Path) -> None:
    rows = {str(number): gqa_row(isBalanced=number % 2 == 0) for number in range(4)}
    write(tmp_path / "gqa/questions1.2/testdev_balanced_questions.json", rows)
    config = composed("prepare", "recipe=gqa", f"paths.raw={tmp_path}", f"paths.data={tmp_path}/data")
    with pytest.raises(ValueError, match=r"4 rows where 12,578 are official"):
        prepare(recipes.load("gqa"), "testdev", config, progress=lambda rows, _: rows)


def test_gqa_evaluates_testdev_and_its_test_has_no_answers(tmp_path: Path) -> None:
    hidden = {key: gqa_row()[key] for key in ("question", "imageId", "isBalanced")}
    write(tmp_path / "gqa/questions1.2/test_balanced_questions.json", {"1": hidden})
    (sample,), _ = items("gqa", "test", tmp_path)
    assert not sample.answers and not sample.meta
    protocol = recipes.load("gqa").protocol("paper")
    assert protocol.split == "testdev" and all(
        "balanced" in file for file in recipes.load("gqa").split("testdev").files
    )


def test_lavis_list_is_not_taken_for_gqas_file(tmp_path: Path) -> None:
    write(tmp_path / "gqa/questions1.2/testdev_balanced_questions.json", [{"image": "n1.jpg", "question_id": "1"}])
    with pytest.raises(ValueError, match="not in the layout"):
        items("gqa", "testdev", tmp_path)


@pytest.mark.parametrize(
    ("recipe", "split"),
    [("vqav2", "train"), ("vqav2", "val"), ("okvqa", "train"), ("okvqa", "test"), ("aokvqa", "val"), ("aokvqa", "test"),
     ("vizwiz", "val"), ("vizwiz", "test"), ("gqa", "train"), ("gqa", "testdev")],
)  # fmt: skip
def test_real_files_are_read_without_an_unexplained_drop(real: Path, tmp_path: Path, recipe: str, split: str) -> None:
    real_tree.link(real, tmp_path)
    samples, drops = items(recipe, split, tmp_path)
    assert samples and len({sample.uid for sample in samples}) == len(samples)
    asked_alone = "question without annotation"  # OKVQA's sample has fewer annotations than questions
    assert set(drops.values()) <= ({asked_alone} if recipe == "okvqa" else set())
    annotators = 0 if split == "test" and recipe != "okvqa" else 1 if recipe == "gqa" else 10
    assert {sum(answer.votes for answer in sample.answers) for sample in samples} == {annotators}
    assert all(sample.slots["question"] and from_row(to_row(sample)) == sample for sample in samples)


@pytest.mark.parametrize(("recipe", "split", "field"), [("vqav2", "train", "answer"), ("okvqa", "test", "raw_answer")])
def test_real_votes_are_the_files_own(real: Path, tmp_path: Path, recipe: str, split: str, field: str) -> None:
    real_tree.link(real, tmp_path)
    annotations = json.loads((tmp_path / recipe / recipes.load(recipe).split(split).files[1]).read_text())[
        "annotations"
    ]
    given = {
        row["question_id"]: sorted((answer[field], answer["answer_confidence"]) for answer in row["answers"])
        for row in annotations
    }
    samples, _ = items(recipe, split, tmp_path)
    kept = {
        int(sample.uid.rsplit("/", 1)[1]): sorted(
            (answer.text, mark) for answer in sample.answers for mark in answer.confidence
        )
        for sample in samples
    }
    assert kept == given
