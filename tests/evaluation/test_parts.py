from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip.evaluation.parts import Parts, Share
from instructblip.evaluation.predictions import Conditions, Prediction, append, encode

from .conftest import World

CONDITIONS = Conditions("vsr", "paper", None, "abc", "rank", {}, "c0ffee", "table", "own", batch_size=2)
BATCHES = [["a", "b"], ["c", "d"], ["e"]]


def parts(folder: Path, batches: Sequence[Sequence[str]] = BATCHES) -> Parts:
    return Parts(folder / "here" / "predictions.jsonl", CONDITIONS, batches)


def written(path: Path, uids: Sequence[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    append(path, CONDITIONS, [Prediction(uid, "?", output=uid) for uid in uids])
    return path


def said(path: Path) -> list[str]:
    return [json.loads(line)["uid"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("uids", "done"), [("", 0), ("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2), ("abcde", 3)])
def test_whole_batches_are_kept(uids: str, done: int, tmp_path: Path) -> None:
    own = written(parts(tmp_path).part(0), uids)
    assert parts(tmp_path).left(Share()) == list(range(done, 3))
    assert said(own) == [uid for batch in BATCHES[:done] for uid in batch]


@pytest.mark.parametrize("tail", [b"{", b'{"uid": "c", "prompt": "?", "output": "c"}', b"\xff\x00"])
def test_a_half_written_line_is_cut_off(tail: bytes, tmp_path: Path) -> None:
    own = written(parts(tmp_path).part(0), "ab")
    whole = own.read_bytes()
    own.write_bytes(whole + tail)
    assert parts(tmp_path).left(Share()) == [1, 2] and own.read_bytes() == whole


def test_a_half_written_first_line_is_cut_off(tmp_path: Path) -> None:
    own = written(parts(tmp_path).part(0), "")
    own.write_bytes(encode(CONDITIONS, Prediction("a", "?", output="a"))[:20])
    assert parts(tmp_path).left(Share()) == [0, 1, 2] and own.read_bytes() == b""


def test_other_conditions_are_refused_and_named(tmp_path: Path) -> None:
    own = written(parts(tmp_path).part(0), "ab")
    before = own.read_bytes()
    other = replace(parts(tmp_path), conditions=replace(CONDITIONS, checkpoint="decaf", batch_size=4))
    with pytest.raises(ValueError, match=r"checkpoint 'c0ffee' is now 'decaf', batch_size 2 is now 4; delete"):
        other.left(Share())
    assert own.read_bytes() == before


@pytest.mark.parametrize(("uids", "line"), [("ba", 1), ("abd", 3), ("abcdez", 6), ("abab", 3), ("acb", 2)])
def test_samples_that_would_not_have_been_written_are_refused(uids: str, line: int, tmp_path: Path) -> None:
    written(parts(tmp_path).part(0), uids)
    with pytest.raises(ValueError, match=f"line {line} is not the Sample that comes next"):
        parts(tmp_path).left(Share())


def test_every_batch_is_dealt_once(tmp_path: Path) -> None:
    for world in (1, 2, 3, 5):
        dealt = [parts(tmp_path).left(Share(rank, world)) for rank in range(world)]
        assert sorted(index for share in dealt for index in share) == [0, 1, 2]


def test_another_number_of_processes_goes_on_with_what_is_there(tmp_path: Path) -> None:
    """Two processes were killed; three go on, each leaving the others' files as they are."""
    written(parts(tmp_path).part(0), "abe")
    other = written(parts(tmp_path).part(1), "c")  # killed within its batch
    before = other.read_bytes()
    assert [parts(tmp_path).left(Share(rank, 3)) for rank in (0, 2)] == [[], []]
    assert other.read_bytes() == before and not parts(tmp_path).join()
    assert parts(tmp_path).left(Share(1, 3)) == [1] and other.read_bytes() == b""
    written(other, "cd")
    assert parts(tmp_path).join() and said(parts(tmp_path).path) == list("abcde")
    assert list(parts(tmp_path).path.parent.iterdir()) == [parts(tmp_path).path]
    assert not parts(tmp_path).join()  # it was done already


def test_a_batch_that_two_processes_wrote_counts_once(tmp_path: Path) -> None:
    for rank, uids in enumerate(("abcd", "cde", "ab")):
        written(parts(tmp_path).part(rank), uids)
    assert parts(tmp_path).join() and said(parts(tmp_path).path) == list("abcde")


def test_a_part_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match=f"is being written by host .*process {os.getpid()}")
    with parts(tmp_path).writing(0), parts(tmp_path).writing(1), refused, parts(tmp_path).writing(0):
        pass


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_any_number_of_processes_writes_the_same_bytes(world_size: int, world: World) -> None:
    path = world.predict("vsr")
    whole, asked = path.read_bytes(), len(world.model.batches)
    path.unlink()
    world.model.batches = []
    ready = []
    for rank in range(world_size):
        world.predict("vsr", Share(rank, world_size))
        ready.append(len(world.ready))
    assert path.read_bytes() == whole and len(world.model.batches) == asked == 4
    assert sum(ready) == 1  # who found everything there scores it; a process without work just ends


def test_what_is_complete_is_scored_by_the_first_process(world: World) -> None:
    world.predict("vsr")
    for rank, ready in ((0, 1), (1, 0)):
        world.predict("vsr", Share(rank, 2))
        assert len(world.ready) == ready


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, Share()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Share(3, 4, 1)),
        ({"SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "5", "SLURM_LOCALID": "2"}, Share(5, 6, 2)),
        ({"SLURM_NTASKS": "6", "SLURM_PROCID": "0"}, Share()),  # in the job script, beside srun
    ],
)
def test_share(environment: dict[str, str], share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") or name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Share.of_environment() == share
