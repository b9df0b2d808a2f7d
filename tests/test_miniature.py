"""The newcomer's first minutes, whole but with fewer steps and questions: what `make train` claims must be true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from instructblip.miniature.design import HELD_OUT
from tests.conftest import run_program

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]
RUN = "miniature-s1"
FEW = ("missing=true", "batch_size=64", "limit=40")


def program(*arguments: str) -> str:
    done = run_program(*arguments, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_only_the_q_former_learns_and_the_picture_is_what_it_answers_from(tmp_path: Path) -> None:
    runs = f"paths.runs={tmp_path}/runs"
    paths = [f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data", runs]
    prepare = ["prepare.py", "miniature=1", "recipe=all", "check_counts=false", *paths]
    train = ["train.py", "experiment=miniature", "seed=1", "steps=100", f"name={RUN}", "resume=auto", *paths]
    program(*prepare)
    program(*train)
    run = tmp_path / "runs" / RUN
    losses = json.loads((run / "finished.json").read_text())["fixed_batch"]
    assert losses["after"] < losses["before"]
    (checkpoint,) = run.glob("checkpoints/*/model.safetensors")
    assert not any(name.startswith(("vision.", "llm.")) for name in load_file(checkpoint))

    program("evaluate.py", f"run={RUN}", "recipe=held_out", *FEW, runs)
    program("evaluate.py", "-m", f"run={RUN}", "recipe=gqa", *FEW[:2], "images=own,deranged,told", "limit=200", runs)
    program("evaluate.py", f"run={RUN}", "recipe=gqa", "missing=true", "constant=true", runs)
    scored = [json.loads(path.read_text()) for path in run.glob("eval/*/*/scores.json")]
    assert {facts["recipe"] for facts in scored if facts["images"] == "own"} == set(HELD_OUT)
    assert value(scored, "told") > value(scored, "own") > value(scored, "deranged")

    page = program("report.py", "html=true", runs)
    assert "report.html" in page and (tmp_path / "runs/report/report.html").is_file()
    assert "is finished" in program(*train)


def value(scored: list[dict[str, Any]], images: str) -> float:
    """Of GQA over 200 questions."""
    (found,) = [facts for facts in scored if (facts["recipe"], facts["images"], facts["n"]) == ("gqa", images, 200)]
    return float(found["value"])
