"""Each file as its server's page shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from instructblip.data.sample import Candidates, Form, MediaRef, Sample
from instructblip.evaluation.predictions import Prediction
from instructblip.evaluation.scores import score
from instructblip.evaluation.submissions import SUBMISSIONS

from .conftest import World, question


def sample(dataset: str, source_id: str, **fields: Any) -> Sample:
    return Sample(f"{dataset}/test/{source_id}", dataset, "test", Form.vqa, (MediaRef("coco", "1"),), **fields)


CHOICES = Candidates(("cab", "train", "bus"))
SAID = Prediction("", "?", output="a cab")
RANKED = Prediction("", "?", scores=[-2.0, -1.0, -2.0])
CASES: dict[str, tuple[Prediction, Sample, Any]] = {
    "vqa": (SAID, sample("vqav2", "262144000"), [{"question_id": 262144000, "answer": "a cab"}]),
    "vizwiz": (
        SAID,
        sample("vizwiz", "VizWiz_test_00000000.jpg"),
        [{"image": "VizWiz_test_00000000.jpg", "answer": "a cab"}],
    ),
    "aokvqa": (
        SAID,
        sample("aokvqa", "22jbM6gDxdaMaunuzgrsBB"),
        {"22jbM6gDxdaMaunuzgrsBB": {"direct_answer": "a cab"}},
    ),
    "gqa": (SAID, sample("gqa", "201307251"), [{"questionId": "201307251", "prediction": "a cab"}]),
    "nocaps": (SAID, sample("nocaps", "17"), [{"image_id": 17, "caption": "a cab"}]),
    "textcaps": (SAID, sample("textcaps", "003a8ae2ef43b901"), [{"image_id": "003a8ae2ef43b901", "caption": "a cab"}]),
    "visdial": (
        RANKED,
        sample("visdial", "185565#03", candidates=CHOICES, group="185565", meta={"round": 3}),
        [{"image_id": 185565, "round_id": 3, "ranks": [2, 1, 3]}],
    ),
}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_form(name: str) -> None:
    prediction, asked, expected = CASES[name]
    assert SUBMISSIONS[name]([(prediction, asked)]) == expected


def test_choices_are_named_by_their_text() -> None:
    ranked = SUBMISSIONS["aokvqa"]([(RANKED, sample("aokvqa", "q", candidates=CHOICES))])
    assert ranked == {"q": {"multiple_choice": "train"}}


def unlabelled(number: int) -> Sample:
    return replace(question(number, ""), uid=f"vqav2/test/{number}", split="test", answers=())


def test_an_unlabelled_split_becomes_a_file_for_its_server(world: World) -> None:
    world.prepare("vqav2", [unlabelled(number) for number in range(3)])
    path = world.predict("vqav2", variant="test")
    (trial,), config = world.trials("vqav2", variant="test"), world.config(variant="test")
    assert score(world.run, trial, config) is None
    written = json.loads(path.with_name("submission.json").read_text(encoding="utf-8"))
    assert written == [{"question_id": number, "answer": f"{number * 40:03d}"} for number in range(3)]
    assert not path.with_name("scores.json").exists()


def test_a_labelled_split_too_when_asked(world: World) -> None:
    path = world.predict("vqav2")
    world.score("vqav2")
    assert not path.with_name("submission.json").exists()
    world.score("vqav2", submit=True)
    assert len(json.loads(path.with_name("submission.json").read_text(encoding="utf-8"))) == 7
    world.predict("vsr")
    with pytest.raises(ValueError, match="vsr: no server form is known for split 'test'"):
        world.score("vsr", submit=True)
