from __future__ import annotations

import math
from pathlib import Path

import pytest

from instructblip.evaluation import answers
from instructblip.evaluation.answers import class_scores, normalize, normalize_evalai, verbaliser


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Man!", "man"),
        ("t-shirt", "t shirt"),
        ("- t-shirt", "tshirt"),  # a dash beside a blank anywhere deletes every dash
        ("1,000-2", "10002"),  # a comma between digits deletes every mark
        ("a.b 3.5 7.", "ab 3.5 7"),
        ("none of ten", "0 of 10"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("line\nbreak\ttab", "line break tab"),
        ("." * 40, "." * 8),
        ("", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("dog's", "dog 's"), ("really?no", "reallyno"), ("1, 2", "1 2"), ("dont", "don't")]
)
def test_normalize_as_the_evalai_server(text: str, expected: str) -> None:
    assert normalize_evalai(text) == expected


def test_true_and_false_stand_in_the_order_of_the_labels() -> None:
    no, yes = verbaliser("truefalse")
    assert "true" in yes and "yes" in yes
    assert "false" in no and "no" in no


def test_an_unknown_vocabulary_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="truefalse"):
        verbaliser("truefalze")


@pytest.mark.parametrize(
    "text",
    [
        "classes: [[a]]",
        "classes: [[yes], [no]]",
        "classes: [[a], []]",
        "classes: [[a], [a]]",
        "clases: [[a]]",
    ],
)
def test_a_vocabulary_that_decides_nothing_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vocab").mkdir()
    (tmp_path / "vocab" / "broken.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(answers, "RECIPES", tmp_path)
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        verbaliser("broken")


def test_a_class_is_as_likely_as_its_words_together() -> None:
    scores = [math.log(p) for p in (0.2, 0.1, 0.25)]
    assert class_scores(scores, [["yes", "true"], ["no"]]) == pytest.approx([math.log(0.3), math.log(0.25)])


def test_class_scores_far_below_what_exp_can_hold() -> None:
    assert class_scores([-2000.0, -2000.0, -1999.0], [["a", "b"], ["c"]]) == pytest.approx([-2000 + math.log(2), -1999])
