from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.choices import Images
from instructblip.evaluation.predictions import (
    Conditions,
    Prediction,
    append,
    encode,
    protocol_hash,
    read,
    resume,
    rows_of,
)

from .conftest import World, statement

CONDITIONS = Conditions("vsr", "paper", "abc", "rank", {}, "c0ffee", "table", "own", batch_size=2)
BATCHES = [["a", "b"], ["c", "d"], ["e"]]


def written(path: Path, *uids: str) -> Path:
    resume(path, CONDITIONS, BATCHES)
    append(path, CONDITIONS, [Prediction(uid, "?", output=uid) for uid in uids])
    return path


@pytest.mark.parametrize(("uids", "done"), [("", 0), ("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2), ("abcde", 3)])
def test_resume_keeps_whole_batches(uids: str, done: int, tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", *uids)
    assert resume(path, CONDITIONS, BATCHES) == done
    kept = [json.loads(line)["uid"] for line in path.read_text().splitlines()]
    assert kept == [uid for batch in BATCHES[:done] for uid in batch]


@pytest.mark.parametrize("tail", [b"{", b'{"uid": "c", "prompt": "?", "output": "c"}', b"\xff\x00"])
def test_resume_cuts_off_a_half_written_line(tail: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert resume(path, CONDITIONS, BATCHES) == 1
    assert path.read_bytes() == whole


def test_a_half_written_first_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(encode(CONDITIONS, Prediction("a", "?", output="a"))[:20])
    assert resume(path, CONDITIONS, BATCHES) == 0
    assert path.read_bytes() == b""


def test_resume_refuses_other_conditions_and_says_which(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", "a", "b")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint 'c0ffee' is now 'decaf', batch_size 2 is now 4; delete"):
        resume(path, replace(CONDITIONS, checkpoint="decaf", batch_size=4), BATCHES)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("uids", "line"), [("ba", 1), ("abd", 3), ("abcdez", 6), ("abab", 3)])
def test_resume_refuses_samples_it_would_not_have_written(uids: str, line: int, tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", *uids)
    with pytest.raises(ValueError, match=f"line {line} is not the Sample that comes next"):
        resume(path, CONDITIONS, BATCHES)


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
    resume(path, CONDITIONS, BATCHES)
    texts = ["a\u2028b\r\nc\x0bd\x85", "ü"]
    append(path, CONDITIONS, [Prediction(uid, "?", output=text) for uid, text in zip("ab", texts, strict=True)])
    assert resume(path, CONDITIONS, BATCHES) == 1
    assert [each.output for each in read(path)[1]] == texts


def test_the_protocol_hash_covers_the_profile_asked_for_and_no_other() -> None:
    protocol = recipes.load("vsr").protocol("paper")
    before = protocol_hash(protocol, "paper", statement(0))
    assert protocol_hash(replace(protocol, prompts=protocol.prompts | {"lavis": "?"}), "paper", statement(0)) == before
    assert protocol_hash(replace(protocol, prompts=protocol.prompts | {"paper": "?"}), "paper", statement(0)) != before
    assert protocol_hash(replace(protocol, version=2), "paper", statement(0)) != before


def test_the_protocol_hash_covers_the_words_that_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = recipes.load("vsr").protocol("paper")
    before = protocol_hash(protocol, "paper", statement(0))
    monkeypatch.setattr("instructblip.evaluation.predictions.verbaliser", lambda _: (("no",), ("yes",)))
    assert protocol_hash(protocol, "paper", statement(0)) != before


def test_controls_and_parts_have_folders_of_their_own(world: World) -> None:
    names = {
        world.path("vsr").parent.name,
        world.path("vsr", images=Images.shuffled).parent.name,
        world.path("vsr", limit=3).parent.name,
        world.path("vsr", images=Images.shuffled, limit=3).parent.name,
    }
    (plain,) = [name for name in names if "shuffled" not in name and "first" not in name]
    assert names == {plain, f"{plain}-shuffled", f"{plain}-first3", f"{plain}-shuffled-first3"}
    assert world.path("vsr") == world.run / "eval" / "vsr" / plain / "predictions.jsonl"


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
