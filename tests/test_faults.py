"""Real processes, real signals: killed at any moment, the second start ends as if nothing had happened."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from instructblip.data.shards import MediaPool
from instructblip.training.checkpoint import last_checkpoint
from tests.conftest import ROOT, World, run_program
from tests.fixtures.warm import Warm

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def until(appears: Path, pattern: str, count: int, process: subprocess.Popen[str]) -> None:
    """Waits for `count` matches of the pattern."""
    deadline = time.monotonic() + 120
    while len(list(appears.glob(pattern))) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def test_prepare_killed_at_random_moments(world: World, tmp_path: Path) -> None:
    arguments = [
        "prepare.py", "recipe=[coco_caption,vqav2,vsr]", f"paths.raw={world.raw}", "check_counts=false", "shard_size=4"
    ]  # fmt: skip
    whole = [*arguments, f"paths.data={tmp_path}/whole"]
    assert run_program(*whole).returncode == 0
    rng = random.Random(0)
    for moment in range(6):
        process = start([*arguments, f"paths.data={tmp_path}/killed"])
        until(tmp_path / "killed", "media/coco/*.tar" if moment % 2 else "**/*.arrow", 1 + moment, process)
        time.sleep(rng.random() * 0.03)
        kill(process)
    assert run_program(*arguments, f"paths.data={tmp_path}/killed").returncode == 0
    for table in sorted((tmp_path / "whole/tables").rglob("*.arrow")):
        assert (
            table.read_bytes()
            == (tmp_path / "killed/tables" / table.relative_to(tmp_path / "whole/tables")).read_bytes()
        )
    pools = [MediaPool(tmp_path / name / "media/coco") for name in ("whole", "killed")]
    assert len(pools[0]) == len(pools[1])
    assert not list((tmp_path / "killed").rglob("*.tmp")), "what a killed process left behind is gone"


def test_training_killed_at_random_moments(world: World, warm: Warm, tmp_path: Path) -> None:
    arguments = [
        "train.py", "experiment=miniature/scratch", "steps=30", "batch_size=8", "group_size=4", "trainer.checkpoint_every=3",
        "trainer.log_every=1", "trainer.num_workers=1", "resume=auto", f"paths.data={world.data}", f"paths.runs={tmp_path}",
    ]  # fmt: skip
    assert warm.start([*arguments, "name=whole"], tmp_path / "whole.txt", {}).wait(120) == 0
    rng = random.Random(1)
    for again in range(4):
        before = last_checkpoint(tmp_path / "killed")
        reached = before.step if before else 0
        process = warm.start([*arguments, "name=killed"], tmp_path / f"killed{again}.txt", {})
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            now = last_checkpoint(tmp_path / "killed")
            if now and now.step > reached:
                break
            time.sleep(0.002)
        time.sleep(rng.random() * 0.1)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL, "it was killed before its end"
    done = warm.start([*arguments, "name=killed"], tmp_path / "killed.txt", {})
    assert done.wait(120) == 0, done.output
    checkpoints = [last_checkpoint(tmp_path / name) for name in ("whole", "killed")]
    weights = [load_file(found.folder / "model.safetensors") for found in checkpoints if found]
    assert len(weights) == 2 and all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])
    steps = [
        [line.split(",")[:2] for line in (tmp_path / name / "metrics.csv").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert steps[0] == steps[1], "every step is logged once, with the same loss"


@pytest.mark.parametrize("moment", ["importing", "loading"])
def test_a_signal_before_the_first_step_ends_the_run(moment: str, world: World, tmp_path: Path) -> None:
    paths = [f"paths.data={world.data}", f"paths.runs={tmp_path}"]
    process = start(["train.py", "experiment=miniature/scratch", "name=early", "trainer.checkpoint_every=1000", *paths])
    maps, deadline = Path(f"/proc/{process.pid}/maps"), time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if "libtorch" in maps.read_text() if moment == "importing" else (tmp_path / "early/.lock").is_file():
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "stopped by SIGTERM; resume=auto goes on" in told
    assert not (tmp_path / "early/checkpoints").exists()
