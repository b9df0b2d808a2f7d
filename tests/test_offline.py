"""With local files nothing asks the network for anything, and nobody has to say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, World

pytestmark = pytest.mark.system
SAID_ELSEWHERE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def alone(monkeypatch: pytest.MonkeyPatch, left: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process that cannot leave this machine; where it tried to is in `left`."""
    for name in SAID_ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/fixtures/offline"))
    monkeypatch.setenv("LEFT", str(left))
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240)


def test_training_and_evaluation_need_no_network(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"paths.data={world.data}", f"paths.runs={tmp_path}/runs"]
    small = ["steps=2", "batch_size=4", "group_size=2", "trainer.micro_batch_size=4", "trainer.num_workers=0"]
    for program in (
        ["train.py", "experiment=miniature/scratch", "name=alone", *small, *paths],
        ["evaluate.py", "run=alone", "recipe=vsr", "limit=4", *paths],
    ):
        done = alone(monkeypatch, tmp_path / "left", *program)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "left").exists(), (tmp_path / "left").read_text()


def test_the_guard_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = "from huggingface_hub import HfApi; HfApi().model_info('gpt2')"
    done = alone(monkeypatch, tmp_path / "left", "-c", asking)
    assert done.returncode == 1 and "socket.getaddrinfo" in (tmp_path / "left").read_text()
