"""Runs and sweeps on a real SLURM, two nodes on this machine: time limits, lost nodes, killed tasks, cancelled jobs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instructblip.training.checkpoint import last_checkpoint
from tests.conftest import ROOT, World, run_program
from tests.fixtures.debian import Unavailable
from tests.fixtures.slurm import NODES, cluster

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
STEPS = 150
RUN = [
    "experiment=miniature/scratch", f"steps={STEPS}", "batch_size=8", "group_size=4", "trainer.micro_batch_size=4",
    "trainer.num_workers=0", "trainer.log_every=1", "trainer.checkpoint_every=1000", "resume=auto",
]  # fmt: skip
PAIR = ["trainer.num_nodes=2", "trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    try:
        with cluster(tmp_path_factory.mktemp("slurm")) as environment:
            yield environment
    except Unavailable as reason:
        pytest.skip(f"no SLURM: {reason}")


def program(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_large_set_is_prepared_by_an_array_and_joined(slurm: dict[str, str], world: World, tmp_path: Path) -> None:
    paths = [f"paths.raw={world.raw}", f"paths.runs={tmp_path}/runs", "recipe=web_capfilt", "check_counts=false"]
    parts = [*paths, f"paths.data={tmp_path}/parts", "parts=4"]
    nodes = [
        "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=1",
        "hydra.launcher.timeout_min=10",
    ]
    swept = program("prepare.py", "-m", *parts, "part=range(0,4)", *nodes, environment=slurm)
    assert swept.returncode == 0, swept.stderr
    logs = list((tmp_path / "runs/.sweeps").rglob("*_log.out"))
    assert len(logs) == 4, "four tasks of an array"
    joined = program("prepare.py", *parts, "join=true", environment=slurm)
    assert joined.returncode == 0, joined.stderr
    whole = program("prepare.py", *paths, f"paths.data={tmp_path}/whole", environment=slurm)
    assert whole.returncode == 0, whole.stderr
    tables = [tmp_path / name / "tables/web_capfilt/train.arrow" for name in ("parts", "whole")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@dataclass(frozen=True)
class Cluster:
    """The commands of the cluster, and where this test's runs lie."""

    environment: dict[str, str]
    runs: Path

    def command(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def submit(self, name: str, arguments: Sequence[str], nodes: int = 1, options: Sequence[str] = ()) -> str:
        """A plain sbatch script around `srun python train.py`; returns the job's number."""
        script = self.runs.parent / f"{name}.sh"
        line = shlex.join([sys.executable, "train.py", *arguments, f"name={name}", f"paths.runs={self.runs}"])
        script.write_text(
            f"#!/bin/bash\nexport MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1\n"
            f"srun --kill-on-bad-exit=1 {line}\n"
        )
        placed = [f"--nodes={nodes}", "--ntasks-per-node=1", "--requeue", "--open-mode=append", f"--chdir={ROOT}"]
        log = f"--output={self.runs.parent}/{name}.log"
        return self.command("sbatch", "--parsable", *placed, log, *options, str(script)).strip()

    def steps(self, name: str) -> int:
        """Steps that the run has logged."""
        path = self.runs / name / "metrics.csv"
        return max(0, len(path.read_text().splitlines()) - 1) if path.is_file() else 0

    def log(self, name: str) -> str:
        path = self.runs.parent / f"{name}.log"
        return path.read_text() if path.is_file() else ""

    def gone(self, job: str) -> bool:
        return not self.command("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip()

    def returned(self, node: str) -> bool:
        """Whether a node is up again; it is told to, unless it came back by itself."""
        resume = ["scontrol", "update", f"nodename={node}", "state=RESUME"]
        subprocess.run(resume, env=self.environment, capture_output=True)
        return not self.command("sinfo", "--noheader", f"--nodes={node}", "--format=%T").startswith("down")

    def ended(self, job: str) -> str:
        """How a job ended: COMPLETED, FAILED, CANCELLED, ..."""
        lines = (Path(self.environment["SLURM_CONF"]).parent / "ended.log").read_text().splitlines()
        states = [found.group(1) for line in lines if (found := re.search(rf"^JobId={job} .*JobState=(\w+)", line))]
        return states[-1] if states else ""


def until(condition: Callable[[], bool], told: Callable[[], str], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.1)


@pytest.fixture
def nodes(slurm: dict[str, str], tmp_path: Path) -> Cluster:
    return Cluster(slurm, tmp_path / "runs")


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    runs = tmp_path_factory.mktemp("whole")
    done = run_program("train.py", *RUN, "name=whole", f"paths.data={world.data}", f"paths.runs={runs}")
    assert done.returncode == 0, done.stderr
    return runs / "whole"


def same_as(whole: Path, run: Path, exact: bool) -> None:
    """The run's steps were each done once; its weights are the undisturbed run's, two processes' in another order."""
    rows = [[line.split(",")[0] for line in (each / "metrics.csv").read_text().splitlines()] for each in (whole, run)]
    assert rows[0] == rows[1]
    found = [last_checkpoint(each) for each in (whole, run)]
    a, b = (load_file(each.folder / "model.safetensors") for each in found if each)
    assert all(torch.equal(a[name], b[name]) if exact else torch.allclose(a[name], b[name], atol=2e-3) for name in a)


@pytest.mark.parametrize(("requeue", "count"), [("exit", 1), ("scontrol", 2)])
def test_a_run_comes_back_after_its_time_limit_twice(
    nodes: Cluster, world: World, whole: Path, requeue: str, count: int
) -> None:
    """SIGUSR1, which `#SBATCH --signal=USR1@n` sends; with RequeueExit=75, or by `scontrol requeue`."""
    arguments = [*RUN, f"trainer.requeue={requeue}", f"paths.data={world.data}", *(PAIR if count > 1 else [])]
    job = nodes.submit("limited", arguments, count)
    reached = 0
    for turn in (1, 2):
        until(lambda: nodes.steps("limited") >= reached + 5, lambda: nodes.log("limited"))  # noqa: B023
        nodes.command("scancel", "--signal=USR1", job)
        until(lambda: nodes.log("limited").count("stopped by SIGUSR1") == turn, lambda: nodes.log("limited"))  # noqa: B023
        reached = nodes.steps("limited")
        assert reached < STEPS
    until(lambda: nodes.gone(job), lambda: nodes.log("limited"))
    assert nodes.ended(job) == "COMPLETED", nodes.log("limited")
    same_as(whole, nodes.runs / "limited", exact=count == 1)


def test_a_lost_node_a_killed_task_and_a_cancelled_job(nodes: Cluster, world: World, whole: Path) -> None:
    """One run after another misfortune: each time it goes on from its last checkpoint."""
    arguments = [*RUN, "trainer.checkpoint_every=10", f"paths.data={world.data}"]
    name = "unlucky"

    job = nodes.submit(name, arguments, options=["--nodelist=n1"])
    until(lambda: nodes.steps(name) > 12, lambda: nodes.log(name))
    nodes.command("scontrol", "update", "nodename=n1", "state=DOWN", "reason=test")
    until(lambda: "PENDING" in nodes.command("squeue", "--noheader", "--format=%T"), lambda: nodes.log(name))
    until(lambda: nodes.returned("n1"), lambda: nodes.command("sinfo"))
    reached = nodes.steps(name)
    until(lambda: nodes.steps(name) > reached + 12, lambda: nodes.log(name))

    nodes.command("scancel", job)
    until(lambda: nodes.gone(job), lambda: nodes.log(name))
    assert nodes.ended(job) == "CANCELLED"
    stopped = last_checkpoint(nodes.runs / name)
    assert stopped and stopped.step == nodes.steps(name) < STEPS, "saved at the step where it was told to stop"
    saved = stopped.step  # read now: the run will remove the checkpoint as it goes on

    job = nodes.submit(name, [*arguments, *PAIR], nodes=len(NODES))
    until(lambda: nodes.steps(name) > saved + 12, lambda: nodes.log(name))
    os.kill(tasks_of(f"name={name}")[-1], signal.SIGKILL)
    until(lambda: nodes.gone(job), lambda: nodes.log(name), seconds=60)
    assert nodes.ended(job) == "FAILED"

    job = nodes.submit(name, arguments)
    until(lambda: nodes.gone(job), lambda: nodes.log(name))
    assert nodes.ended(job) == "COMPLETED", nodes.log(name)
    same_as(whole, nodes.runs / name, exact=False)


def test_a_sweep_is_an_array_that_submitit_requeues_at_the_time_limit(
    nodes: Cluster, world: World, whole: Path
) -> None:
    """Of two jobs one is refused; the other gets submitit's SIGUSR2, comes back by its own doing and ends as ever."""
    options = ["cpus_per_task=1", "mem_gb=1", "timeout_min=10", "array_parallelism=2", "max_num_timeout=3"]
    swept = [
        "train.py", "-m", "hydra/launcher=slurm", *(f"hydra.launcher.{option}" for option in options), *RUN[:3],
        "group_size=4,3", *RUN[4:-1], f"paths.data={world.data}", f"paths.runs={nodes.runs}",
    ]  # fmt: skip
    launcher = subprocess.Popen(
        [sys.executable, *swept], cwd=ROOT, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    trains = lambda: any(nodes.steps(run.name) > 5 for run in nodes.runs.glob("miniature-scratch-s42-*"))  # noqa: E731
    until(lambda: trains() and len(tasks_of("submitit.core._submit")) == 1, lambda: "no job trains alone")
    os.kill(tasks_of("submitit.core._submit")[0], signal.SIGUSR2)
    told = launcher.communicate(timeout=400)[0]
    assert launcher.returncode == 1, told
    assert told.count(" done ") == told.count(" refused ") == 1 and "1 of 2 jobs are not done" in told
    logs = "".join(path.read_text() for path in nodes.runs.glob(".sweeps/*/.submitit/*/*_log.*"))
    assert logs.count("stopped by SIGUSR2") == logs.count("Requeued job") == 1
    (run,) = nodes.runs.glob("miniature-scratch-s42-*/finished.json")
    same_as(whole, run.parent, exact=True)


def tasks_of(word: str) -> list[int]:
    """Python processes with this word among their arguments, which the launchers around them have too."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if Path(words[0]).name.startswith("python") and word in words:
            found.append(int(each.parent.name))
    return sorted(found)
