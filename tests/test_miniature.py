"""The newcomer's first minutes, whole: what `make train` claims must be true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import run_program

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def program(*arguments: str) -> None:
    done = run_program(*arguments, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_model_learns_to_look_at_the_picture(tmp_path: Path) -> None:
    paths = [f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data", f"paths.runs={tmp_path}/runs"]
    program("prepare.py", "miniature=1", "recipe=[coco_caption,vqav2,vsr]", "check_counts=false", *paths)
    program("train.py", "experiment=miniature/scratch", "seed=1", *paths)
    run = tmp_path / "runs/miniature-scratch-s1"
    losses = json.loads((run / "finished.json").read_text())["fixed_batch"]
    assert losses["after"] < losses["before"] / 2

    program("evaluate.py", "run=miniature-scratch-s1", "recipe=[vqav2,vsr]", paths[2])
    program("evaluate.py", "run=miniature-scratch-s1", "recipe=vqav2", "images=shuffled", paths[2])
    scores = [json.loads(path.read_text()) for path in run.glob("eval/*/*/scores.json")]
    value = {(facts["recipe"], facts["images"]): facts["value"] for facts in scores}
    assert value["vqav2", "own"] > value["vqav2", "shuffled"] + 0.05
    assert len(value) == 3
