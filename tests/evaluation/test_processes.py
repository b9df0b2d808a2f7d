"""Real processes on the embedded world: all held-out sets, any number of ranks, killed and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.miniature import sources
from tests.conftest import ROOT, SMALL, composed, run_program, run_ranks

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


def program(*arguments: str) -> str:
    done = run_program(*arguments, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.glob("eval/*/*/*"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, and the prepared embedded world beside it."""
    folder = tmp_path_factory.mktemp("evaluated")
    sources.write(folder / "raw", seed=0, sizes=SMALL)
    paths = [f"paths.raw={folder}/raw", f"paths.data={folder}/data", f"paths.runs={folder}/runs"]
    program("prepare.py", "recipe=all", "check_counts=false", *paths)
    small = ["steps=3", "batch_size=8", "group_size=4", "trainer.num_workers=0", "name=tiny"]
    program("train.py", "experiment=miniature/scratch", *small, *paths)
    return folder / "runs"


def copied(runs: Path, name: str) -> Path:
    """The run without results, under another name."""
    shutil.copytree(runs / "tiny", runs / name, ignore=shutil.ignore_patterns("eval"))
    return runs / name


def test_all_held_out_sets_are_scored(runs: Path) -> None:
    program("evaluate.py", "run=tiny", "recipe=held_out", f"paths.runs={runs}")
    scored = {path.parent.parent.name for path in (runs / "tiny").glob("eval/*/*/scores.json")}
    assert scored == set(composed("prepare", "recipe=all").partition.held_out) and len(scored) == 13
    assert all(recipes.load(name).evaluation for name in scored)


def test_any_number_of_ranks_writes_the_same_bytes(runs: Path) -> None:
    asked = ["recipe=[vsr,vqav2,visdial,msvd_qa,nocaps]", "batch_size=4", f"paths.runs={runs}"]
    found = []
    for count in (1, 2, 3):
        run = copied(runs, f"ranks{count}")
        run_ranks(count, "evaluate.py", f"run={run.name}", *asked, timeout=300)
        found.append(results(run))
    assert found[0] == found[1] == found[2] and len(found[0]) == 10


def test_killed_and_started_again_with_other_ranks(runs: Path) -> None:
    asked = ["recipe=vqav2", "prompts=all", "batch_size=2", f"paths.runs={runs}"]
    whole, killed = copied(runs, "whole"), copied(runs, "killed")
    program("evaluate.py", "run=whole", *asked)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "evaluate.py", "run=killed", *asked], cwd=ROOT)
        until = time.monotonic() + 120
        before = sum(path.stat().st_size for path in killed.glob("eval/*/*/part-*"))
        while sum(path.stat().st_size for path in killed.glob("eval/*/*/part-*")) <= before + 20_000:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    part = next(iter(sorted(killed.glob("eval/*/*/part-000.jsonl"))))
    part.write_bytes(part.read_bytes() + b'{"uid": "vqav2/va')
    run_ranks(2, "evaluate.py", "run=killed", *asked, timeout=300)
    assert results(killed) == results(whole)
