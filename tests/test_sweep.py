"""Sweeps: every job is told of at the end, refused ones too, and the same command does only what is missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from instructblip import sweep
from instructblip.files import read_json
from instructblip.sweep import Job, kept, slot
from tests.conftest import ROOT, World, run_program


def record(folder: Path, body: Callable[[], object]) -> dict[str, object]:
    kept(
        folder, Job(0, "run"), body, nullcontext(), lambda error: str(error) if isinstance(error, ValueError) else None
    )
    facts: dict[str, object] = read_json(folder / "job-0000.json")
    return facts


def refuse() -> None:
    raise ValueError("batch_size=8 is too small")


def fail() -> None:
    raise OSError("no space left")


@pytest.mark.parametrize(
    ("body", "state", "message"),
    [
        (lambda: None, "done", ""),
        (refuse, "refused", "batch_size=8 is too small"),
        (fail, "failed", "OSError: no space left"),
    ],
)
def test_what_became_of_a_job_is_recorded(tmp_path: Path, body: Callable[[], object], state: str, message: str) -> None:
    facts = record(tmp_path, body)
    assert (facts["state"], facts["message"], facts["label"]) == (state, message, "run")


def test_a_job_that_is_told_to_stop_ends_its_process(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        record(tmp_path, lambda: sys.exit(143))
    assert read_json(tmp_path / "job-0000.json")["state"] == "interrupted"


def test_the_end_tells_of_every_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job(number, f"run{number}") for number in range(3)]
    sweep.begin(tmp_path, jobs)
    kept(tmp_path, jobs[1], refuse, nullcontext(), str)
    kept(tmp_path, jobs[2], lambda: None, nullcontext(), str)
    assert not sweep.end(tmp_path, jobs)
    told = capsys.readouterr().out
    assert all(
        word in told for word in ("run0", "waiting", "run1", "refused", "run2", "done", "2 of 3 jobs are not done")
    )


def test_two_jobs_of_one_run_are_refused_before_any_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs 0 and 2 of the sweep are both a"):
        sweep.begin(tmp_path, [Job(0, "a"), Job(1, "b"), Job(2, "a")])


def test_a_place_brings_its_own_gpus_and_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = tmp_path / "gpus"
    for number in range(4):
        (gpus / str(number)).mkdir(parents=True)
    monkeypatch.setattr(sweep, "GPUS", gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sweep.slots_here(2) == 2
    with slot(tmp_path, 2, 2):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
        with slot(tmp_path, 2, 2):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    with slot(tmp_path, 2, 2):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=local"]], ids=["in turn", "local"])
def test_a_sweep_with_a_refused_job(world: World, tmp_path: Path, launcher: list[str]) -> None:
    """The others go on; the same command again, with the cause away, does only what is missing."""
    arguments = [
        "train.py", "-m", *launcher, "experiment=[miniature/scratch,ablation/no_balancing],miniature/scratch", "seed=1,2", "steps=2",
        "batch_size=8", "group_size=4", "trainer.num_workers=0", f"paths.data={world.data}", f"paths.runs={tmp_path}",
    ]  # fmt: skip
    done = run_program(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sorted(tmp_path.glob("*/finished.json"))
    assert len(runs) == 4 and done.stdout.count(" done ") == 4
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*") if path.is_file() and path.name != ".lock"}
    runs[0].unlink()
    (runs[0].parent / "config.yaml").write_text("seed: [")
    again = run_program(*arguments)
    assert again.returncode == 1 and again.stdout.count(" done ") == 3 and "1 of 4 jobs are not done" in again.stdout
    changed = {path for path, content in before.items() if path.exists() and path.read_bytes() != content}
    assert changed <= {runs[0].parent / "config.yaml"}
    records = [json.loads(path.read_text())["state"] for path in sorted(tmp_path.glob(".sweeps/*/job-*.json"))]
    assert sorted(records)[:3] == ["done"] * 3
    assert os.listdir(ROOT).count("multirun.yaml") == 0
