from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip.data.preparing.vocabularies import vocabulary_path
from instructblip.data.sample import Answer, Sample
from instructblip.evaluation.answering import TOP
from instructblip.evaluation.predictions import read

from .conftest import World, question

WORDS = [f"w{number:02d}" for number in range(30)]


def asked(number: int, answer: str) -> Sample:
    uid = f"msvd_qa/test/{number}"
    return replace(question(number, ""), uid=uid, dataset="msvd_qa", split="test", answers=(Answer(answer),))


@pytest.fixture
def words(world: World) -> World:
    """Five questions; three have the best word for an answer, one a word in the middle, one none that is ranked."""
    path = vocabulary_path(world.data, "msvd_qa", "lavis")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"answers": WORDS, "hash": "h"}), encoding="utf-8")
    world.model.likes = {word: -float(number % 29) for number, word in enumerate(WORDS)}  # the last equals the first
    world.prepare("msvd_qa", [asked(n, answer) for n, answer in enumerate(["w00", "w00", "w00", "w15", "cat"])])
    (Path(world.data) / "media" / "msvd").symlink_to(world.data / "media" / "coco")
    return world


def test_a_vocabulary_is_ranked_and_the_best_is_the_answer(words: World) -> None:
    conditions, predictions = read(words.predict("msvd_qa"))
    by_uid = {each.uid: each for each in predictions}
    middle = by_uid["msvd_qa/test/3"]
    assert middle.output == "w00" and middle.scores is None and conditions.mode == "rank"
    assert middle.top and list(middle.top) == ["w00", "w29", *WORDS[1 : TOP - 1]]  # of equals the first in its order
    assert middle.truth == {"w15": -15.0} and by_uid["msvd_qa/test/4"].truth == {}
    assert words.score("msvd_qa").value == 3 / 5


def test_a_vocabulary_is_tokenised_once(words: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructblip.data.collate import Collator

    counted = []
    candidate_ids = Collator.candidate_ids
    monkeypatch.setattr(
        Collator, "candidate_ids", lambda self, texts: (counted.append(len(texts)), candidate_ids(self, texts))[1]
    )
    words.predict("msvd_qa", batch_size=1)
    assert counted == [len(WORDS)]


def test_other_words_are_another_trial(words: World) -> None:
    before = words.path("msvd_qa")
    path = vocabulary_path(words.data, "msvd_qa", "lavis")
    path.write_text(json.dumps({"answers": WORDS[::-1], "hash": "h"}), encoding="utf-8")
    assert words.path("msvd_qa") != before
