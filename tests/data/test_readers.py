"""Readers keep what the source says: votes, raw text, media by pool and key; what they leave out has a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.data.readers.base import Drop, image_id
from instructblip.data.readers.registry import read
from instructblip.data.sample import Answer, Sample
from tests.fixtures import real_tree


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def samples(recipe: str, split: str, raw: Path) -> list[Sample]:
    return [item for item in read(recipes.load(recipe), split, raw) if isinstance(item, Sample)]


def test_vqa_keeps_votes_and_raw_text(tmp_path: Path) -> None:
    given = ["net", "netting", "net", "Net", "none"] * 2
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(given, 1)]
    write(
        tmp_path / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
        {
            "questions": [
                {"image_id": 9, "question": "What is this?", "question_id": 9000},
                {"image_id": 9, "question": "?", "question_id": 9001},
            ]
        },
    )
    write(
        tmp_path / "vqav2/v2_mscoco_val2014_annotations.json",
        {"annotations": [
            {"question_id": 9000, "image_id": 9, "answers": answers, "answer_type": "other", "question_type": "what is"},
            {"question_id": 7, "image_id": 9, "answers": answers, "answer_type": "other", "question_type": "what is"},
        ]},
    )  # fmt: skip
    items = list(read(recipes.load("vqav2"), "val", tmp_path))
    (sample,) = [item for item in items if isinstance(item, Sample)]
    assert sample.uid == "vqav2/val/9000" and sample.slots == {"question": "What is this?"}
    assert [(a.text, a.votes) for a in sample.answers] == [("net", 4), ("netting", 2), ("Net", 2), ("none", 2)]
    assert sample.media[0].pool == "coco" and sample.media[0].key == "9"
    drops = {item.uid: item.reason for item in items if isinstance(item, Drop)}
    assert drops == {"vqav2/val/9001": "question without annotation", "vqav2/val/7": "annotation without question"}


@pytest.mark.parametrize(
    "name", ["COCO_train2014_000000000094.jpg", "000000000094.jpg", "COCO_val2014_000000000094.jpg"]
)
def test_coco_ids_are_one_over_both_layouts(name: str) -> None:
    assert image_id(name) == 94


@pytest.mark.parametrize("name", ["94.jpg", "COCO_train2014_94.jpg", "x000000000094.jpg", "000000000094.jpg.jpg"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a COCO file name"):
        image_id(name)


def test_votes_of_a_real_question(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path)
    first = samples("vqav2", "train", tmp_path)[0]
    assert first.slots["question"] == "What is printed on the orange sign?"
    assert sum(answer.votes for answer in first.answers) == 10
    pizza = next(answer for answer in first.answers if answer.text == "pizza")
    assert isinstance(pizza, Answer) and pizza.votes == len(pizza.confidence) > 1
