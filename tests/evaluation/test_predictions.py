from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip.evaluation.predictions import Conditions, Prediction, append, read, rows_of

CONDITIONS = Conditions("vsr", "paper", None, "abc", "rank", {}, "c0ffee", "table", "own", batch_size=2)


def written(path: Path, *uids: str) -> Path:
    append(path, CONDITIONS, [Prediction(uid, "?", output=uid) for uid in uids])
    return path


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", "a", "b")
    path.write_bytes(path.read_bytes().replace(b'"uid": "b"', b'"uid" "b"'))
    with pytest.raises(ValueError, match="line 2 is not a prediction"):
        read(path)


def test_no_predictions_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluate\.py"):
        read(tmp_path / "p.jsonl")


def test_line_separators_in_a_text_stay_inside_their_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    texts = ["a\u2028b\r\nc\x0bd\x85", "ü"]
    append(path, CONDITIONS, [Prediction(uid, "?", output=text) for uid, text in zip("ab", texts, strict=True)])
    assert [each.output for each in read(path)[1]] == texts


def test_limit() -> None:
    assert list(rows_of(3, None)) == list(rows_of(3, 9)) == [0, 1, 2]
    assert list(rows_of(3, 2)) == [0, 1]
    with pytest.raises(ValueError, match="limit=0"):
        rows_of(3, 0)


def test_a_line_is_complete_in_itself(tmp_path: Path) -> None:
    line = json.loads(written(tmp_path / "p.jsonl", "a").read_text(encoding="utf-8"))
    assert (line["uid"], line["prompt"], line["output"]) == ("a", "?", "a")
    assert Conditions(**line["conditions"]) == CONDITIONS


def test_predictions_of_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", "a")
    append(path, replace(CONDITIONS, checkpoint="decaf"), [Prediction("b", "?", output="b")])
    with pytest.raises(ValueError, match="checkpoint"):
        read(path)
