"""Checkpoints survive kills, damage and full disks; the newest good one is found, the best one is kept."""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from instructblip.training.checkpoint import (
    MANIFEST,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    Record,
    best_checkpoint,
    checkpoints,
    last_good,
    save,
)
from instructblip.training.disk import Unwritable
from instructblip.training.state import TrainState


def tensors(size: int = 16) -> TrainState:
    return TrainState({"w": torch.arange(float(size))}, {"exp_avg.w": torch.ones(size)})


def saved(run: Path, *steps: int, keep: int = 9, **facts: float) -> None:
    for step in steps:
        save(run, Record(step, "base", **facts), tensors(), keep)  # type: ignore[arg-type]


def kept(run: Path) -> list[int]:
    return [found.step for found in checkpoints(run)]


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, STATE, MANIFEST])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_damage_is_noticed_named_once_and_kept(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 3, 6)
    path = tmp_path / "checkpoints/step-00000006" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    {
        "truncated": lambda: path.write_bytes(content[:-5]),
        "flipped": lambda: path.write_bytes(content),
        "empty": lambda: path.write_bytes(b""),
        "missing": path.unlink,
    }[damage]()
    found = last_good(tmp_path)
    assert found and found.step == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "step-00000006 is damaged" in told and "going on from step 3" in told
    assert (tmp_path / "checkpoints/step-00000006.corrupt").is_dir()
    last_good(tmp_path)
    assert not capsys.readouterr().err
    saved(tmp_path, 6)
    assert last_good(tmp_path).step == 6  # type: ignore[union-attr]


def test_a_flip_anywhere_is_noticed(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (found,) = checkpoints(tmp_path)
    for name in (WEIGHTS, OPTIMIZER, STATE, MANIFEST):
        content = (found.folder / name).read_bytes()
        for place in range(0, len(content) - 1, max(1, len(content) // 20)):
            (found.folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            damaged = found.fault()
            blank = name == MANIFEST and content[place : place + 1].isspace()  # JSON means the same without it
            assert damaged or blank, f"{name} at {place}"
        (found.folder / name).write_bytes(content)
    assert found.fault() is None


def test_only_damaged_ones_end_the_start_again_and_again(tmp_path: Path) -> None:
    assert last_good(tmp_path) is None, "a run that was stopped before its first checkpoint begins at step 0"
    saved(tmp_path, 3, 6)
    for step in (3, 6):
        (tmp_path / f"checkpoints/step-0000000{step}" / WEIGHTS).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no checkpoint of .* can be read: .*Put a copy of one back"):
            last_good(tmp_path)


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, score in ((1, 0.2), (2, 0.7), (3, 0.7), (4, None), (5, 0.1), (6, float("nan"))):
        save(tmp_path, Record(step, "base", selection=score), tensors(), keep=2)
    assert kept(tmp_path) == [2, 5, 6]
    best = best_checkpoint(tmp_path)
    assert best and best.step == 2
    saved(tmp_path / "unscored", 1, 2, 3, keep=1)
    assert kept(tmp_path / "unscored") == [3] and best_checkpoint(tmp_path / "unscored") is None


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files, which a full disk and a quota look like from within."""
    saved(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(Unwritable, match=r"step-00000002 cannot be written \(.*\), with [\d,]+ bytes free in"):
            save(tmp_path, Record(2, "base"), tensors(100_000), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"] and last_good(tmp_path)


def test_what_a_killed_writer_left_is_gone_after_the_next_start(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "checkpoints/.step-00000002.tmp").mkdir()
    (tmp_path / "checkpoints/.step-00000002.tmp" / WEIGHTS).write_bytes(b"half")
    assert last_good(tmp_path) and os.listdir(tmp_path / "checkpoints") == ["step-00000001"]


@pytest.mark.system
def test_a_hundred_kills_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With temporary files on another file system, from where nothing could be renamed."""
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev
    rng, done, halves = random.Random(0), 0, 0
    for _ in range(100):
        process, reports = saving_for_ever(tmp_path, done)
        done = max(done, int.from_bytes(os.read(reports, 8)))  # one is written, the next begins
        time.sleep(rng.random() * 0.02)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        while report := os.read(reports, 8):
            done = int.from_bytes(report)
        os.close(reports)
        names = os.listdir(tmp_path / "checkpoints")
        halves += any(name.endswith(".tmp") for name in names)
        assert all(not found.fault() for found in checkpoints(tmp_path))
        assert {found.folder.name for found in checkpoints(tmp_path)} == {n for n in names if n.startswith("step-")}
        last = last_good(tmp_path)
        assert last and last.step in (done, done + 1)  # it may have been killed before it could say so
        assert all(name.startswith("step-") for name in os.listdir(tmp_path / "checkpoints"))
        done = last.step
    assert halves > 20, "most kills come while something is written"
    assert not capsys.readouterr().err, "none was damaged"


def saving_for_ever(run: Path, done: int) -> tuple[int, int]:
    """A process that writes checkpoints of 1 MB, and where it reports each step it has written, 8 bytes a step."""
    reading, writing = os.pipe()
    if process := os.fork():
        os.close(writing)
        return process, reading
    try:
        for step in itertools.count(done + 1):
            save(run, Record(step, "base"), tensors(131_072), 2)
            os.write(writing, step.to_bytes(8))
    finally:
        os._exit(1)


def test_the_state_says_what_it_is_of(tmp_path: Path) -> None:
    record = Record(4, "base", selection=0.5, skipped=1, learning_rate=1e-5, config={"seed": 42}, config_hash="abc")
    save(tmp_path, record, tensors(), keep=1)
    (found,) = checkpoints(tmp_path)
    assert found.record == record
    assert json.loads((found.folder / STATE).read_text())["selection"] == 0.5
