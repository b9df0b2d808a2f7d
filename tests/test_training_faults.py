"""Runs that are stopped, starved, damaged or hang: exit code, message, and a second start that ends as if nothing was."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instructblip.training.callbacks.metrics import read_metrics
from instructblip.training.checkpoint import WEIGHTS, last_checkpoint
from tests.conftest import World
from tests.fixtures.warm import Warm, session

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
STEPS = 20
ROUNDING = 1e-5  # of weights, after STEPS
WAIT = ("wait", 0, STEPS - 4)  # a run that is to be stopped does not end before

Run = dict[str, torch.Tensor]
Start = Callable[..., "Ranks"]


class Ranks:
    """A run in processes that find each other as torchrun's do."""

    def __init__(self, warm: Warm, folder: Path, arguments: Sequence[str], fault: Sequence[Any], count: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.go = folder / f"{port}.go"
        together = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
            "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "GO": str(self.go),
        }  # fmt: skip
        self.processes = [
            warm.start(
                arguments,
                folder / f"{port}-{rank}.txt",
                {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                fault,
            )
            for rank in range(count)
        ]

    @property
    def outputs(self) -> list[str]:
        return [process.output for process in self.processes]

    def codes(self, timeout: float = 60) -> list[int]:
        """When all have ended, and their data workers."""
        self.go.touch()
        until = time.monotonic() + timeout
        try:
            codes = [process.wait(until - time.monotonic()) for process in self.processes]
            while any(session(process.pid) for process in self.processes):
                assert time.monotonic() < until, "data workers outlive their run"
                time.sleep(0.05)
        finally:
            for process in self.processes:
                process.kill()
        return codes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def start(world: World, warm: Warm, runs: Path) -> Start:
    def begin(name: str, *more: str, fault: Sequence[Any] = (), count: int = 2) -> Ranks:
        arguments = [
            "train.py", "experiment=miniature/scratch", f"steps={STEPS}", "batch_size=8", "group_size=4", f"name={name}",
            "trainer.micro_batch_size=4", "trainer.num_workers=1", "trainer.log_every=1", "trainer=ddp",
            "trainer.accelerator=cpu", f"trainer.devices={count}", "trainer.precision=fp32", "trainer.num_threads=1",
            "trainer.checkpoint_every=1000", "resume=auto", f"paths.data={world.data}", f"paths.runs={runs}", *more,
        ]  # fmt: skip
        return Ranks(warm, runs, arguments, fault, count)

    return begin


@pytest.fixture(scope="module")
def whole(start: Start, runs: Path) -> Run:
    """The weights of an undisturbed run."""
    ranks = start("whole")
    assert ranks.codes() == [0, 0], ranks.outputs
    return weights(runs / "whole")


def weights(run: Path) -> Run:
    found = last_checkpoint(run)
    assert found and found.step == STEPS
    return load_file(found.folder / WEIGHTS)


def equal(own: Run, whole: Run) -> bool:
    return own.keys() == whole.keys() and all(torch.equal(own[name], whole[name]) for name in whole)


def close(own: Run, whole: Run) -> bool:
    """But for the order of sums: another number of processes has other micro-batches of the same step."""
    return own.keys() == whole.keys() and all(
        torch.allclose(own[name], whole[name], rtol=1e-4, atol=ROUNDING) for name in whole
    )


def until(met: Callable[[], bool], ranks: Ranks) -> None:
    """Waits while all processes run."""
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end and all(process.poll() is None for process in ranks.processes), ranks.outputs
        time.sleep(0.002)


def rows(run: Path, count: int, ranks: Ranks) -> None:
    """Waits until a run has logged `count` steps."""
    path = run / "metrics.csv"
    until(lambda: path.is_file() and path.read_text().count("\n") > count, ranks)


@pytest.mark.parametrize(
    ("name", "sent", "requeue", "code"),
    [
        ("term-all", [(0, signal.SIGTERM), (1, signal.SIGTERM)], "never", 143),
        ("term-0", [(0, signal.SIGTERM)], "never", 143),
        ("term-1", [(1, signal.SIGTERM)], "never", 143),
        ("usr1", [(0, signal.SIGUSR1), (1, signal.SIGUSR1)], "exit", 75),
        ("double", [(0, signal.SIGTERM), (1, signal.SIGTERM), (0, signal.SIGTERM), (0, signal.SIGINT)], "never", 143),
    ],
)
def test_a_signal_stops_all_at_one_step(
    name: str, sent: list[tuple[int, int]], requeue: str, code: int, start: Start, runs: Path, whole: Run
) -> None:
    ranks = start(name, f"trainer.requeue={requeue}", fault=WAIT)
    rows(runs / name, 3, ranks)
    for place, (rank, number) in enumerate(sent):
        if place > 1:
            time.sleep(0.01)
        ranks.processes[rank].send_signal(number)
    assert ranks.codes() == [code, code], ranks.outputs
    assert "resume=auto goes on" in ranks.outputs[0]
    found = last_checkpoint(runs / name)
    assert found and 3 <= found.step < STEPS
    again = start(name)
    assert again.codes() == [0, 0], again.outputs
    assert f"step {found.step} of" not in again.outputs[0] and f"step {found.step + 1} of" in again.outputs[0]
    assert equal(weights(runs / name), whole)


def test_a_lost_process_ends_the_other(start: Start, runs: Path, whole: Run) -> None:
    ranks = start("lost", "trainer.checkpoint_every=4", fault=("kill", 1, 6))
    assert ranks.codes() == [1, -signal.SIGKILL], ranks.outputs
    assert "rank 0 ended at step 6" in ranks.outputs[0]
    again = start("lost", "trainer.checkpoint_every=4")
    assert again.codes() == [0, 0], again.outputs
    assert "step 4 of" not in again.outputs[0] and equal(weights(runs / "lost"), whole)


def test_a_hanging_process_ends_the_other(start: Start, runs: Path) -> None:
    ranks = start("hanging", "trainer.timeout=10", fault=("stop", 1, 3))
    try:
        assert ranks.processes[0].wait(60) == 1
    finally:
        ranks.processes[1].kill()
    told = ranks.outputs[0]
    assert "rank 0: step 3 has not ended after 10 s" in told and "Thread" in told and "module.py" in told
    assert "training_step" in (runs / "hanging/hanging-rank0.txt").read_text()


def test_a_process_that_hangs_by_itself_ends(start: Start) -> None:
    """No other process is there to notice."""
    ranks = start("alone", "trainer.timeout=5", fault=("wait", 0, 3), count=1)
    assert ranks.processes[0].wait(60) == 1
    assert "rank 0: step 3 has not ended after 5 s" in ranks.outputs[0] and "faulty.py" in ranks.outputs[0]


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_a_loss_on_one_process_that_is_no_number(fault: str, start: Start, runs: Path) -> None:
    name = f"stopped-{fault}"
    ranks = start(name, "trainer.checkpoint_every=4", fault=(fault, 1, 5))
    assert ranks.codes() == [1, 1], ranks.outputs
    where = "language_projection" if fault == "nan" else "its gradient of"
    for told in ranks.outputs:
        assert f"rank 1, micro-batch 0: {where}" in told
    found = last_checkpoint(runs / name)
    assert found and found.step == 4 and found.record.skipped == 0


def test_a_step_that_is_no_number_is_skipped(start: Start, runs: Path) -> None:
    ranks = start("skipped", "trainer.on_nonfinite=skip", fault=("nan", 1, 5))
    assert ranks.codes() == [0, 0], ranks.outputs
    (line,) = map(json.loads, (runs / "skipped/nonfinite.jsonl").read_text().splitlines())
    assert line["step"] == 5 and [origin["rank"] for origin in line["origins"]] == [1]
    assert line["origins"][0]["uids"]
    found = last_checkpoint(runs / "skipped")
    assert found and found.record.skipped == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(runs / "skipped").values())


def test_damage_another_config_a_second_start_other_workers_and_the_end(start: Start, runs: Path, whole: Run) -> None:
    """One run, one thing after another."""
    often = "trainer.checkpoint_every=4"
    assert start("long", often, fault=("kill", 0, 9)).codes()[0] == -signal.SIGKILL
    newest = last_checkpoint(runs / "long")
    assert newest and newest.step == 8
    (newest.folder / WEIGHTS).write_bytes(b"")

    changed = start("long", often, "optim.lr=0.5", count=1)
    assert changed.codes() == [2] and "is now 0.5" in changed.outputs[0]

    ranks = start("long", often, "trainer.num_workers=0", fault=("wait", 0, 10))
    until(lambda: "step 10 of" in ranks.outputs[0], ranks)
    second = start("long", often, count=1)
    assert second.codes() == [2] and "is being written by host" in second.outputs[0]
    ranks.processes[1].send_signal(signal.SIGKILL)
    assert ranks.codes()[1] == -signal.SIGKILL
    assert ranks.outputs[0].count("is damaged") == 1 and "going on from step 4" in ranks.outputs[0]

    again = start("long", often, "trainer.num_workers=2")
    assert again.codes() == [0, 0], again.outputs
    assert equal(weights(runs / "long"), whole)
    assert start("long", often).codes() == [0, 0], "a finished run says so"


def test_two_processes_then_one_then_two(start: Start, runs: Path, whole: Run) -> None:
    """The same samples in every step, and the same updates but for rounding."""
    for count, after in ((2, 3), (1, 8)):
        ranks = start("worlds", fault=WAIT, count=count)
        rows(runs / "worlds", after, ranks)
        ranks.processes[0].send_signal(signal.SIGTERM)
        assert ranks.codes() == [143] * count, ranks.outputs
        found = last_checkpoint(runs / "worlds")
        assert found and after <= found.step < STEPS
    refused = start("worlds", "batch_size=16", count=1)
    assert refused.codes() == [2] and "batch_size: 8 is now 16" in refused.outputs[0]
    again = start("worlds")
    assert again.codes() == [0, 0], again.outputs
    assert close(weights(runs / "worlds"), whole)
    for facts in ("start.json", "ledger.json"):
        assert (runs / "worlds" / facts).read_bytes() == (runs / "whole" / facts).read_bytes()


def test_training_goes_on_over_a_full_disk(start: Start, runs: Path, tmp_path: Path, whole: Run) -> None:
    """A small file system where one can be mounted, else a limit on the size of files."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]  # a checkpoint has 6 MB
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        often = ("trainer.checkpoint_every=4", "trainer.on_full_disk=go_on", f"paths.runs={tmp_path}")
        ranks = start("full", *often, fault=("wait", 0, 6), count=1)
        metrics, size = tmp_path / "full/metrics.csv", 64 * 1024  # of the limit; a page of the file system divides it
        rows(tmp_path / "full", 6, ranks)
        with metrics.open("a") as file:
            file.write("\n" * (size - metrics.stat().st_size))  # no rows, and no room in a page for more
        if mounted:
            fill(tmp_path / "filler")
        else:
            resource.prlimit(ranks.processes[0].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        assert ranks.codes() == [1], "the last checkpoint is missing"
        told = ranks.outputs[0]
        assert (
            f"step {STEPS} of {STEPS}" in told and f"left out ({STEPS - 6} so far): {metrics} cannot be written" in told
        )
        assert f"checkpoint {len(range(8, STEPS + 1, 4))} that could not be written" in told
        assert re.search(rf"step-{STEPS:08d} cannot be written .*, with [\d,]+ bytes free in {tmp_path}", told)
        found = last_checkpoint(tmp_path / "full")
        assert found and found.step == 4 and not found.fault()
        assert [row["step"] for row in read_metrics(metrics)] == [str(step) for step in range(1, 7)]
        if mounted:
            (tmp_path / "filler").unlink()
            subprocess.run([*mount[:3], "-o", "remount,size=40m", "tmpfs", str(tmp_path)], check=True)
        again = start("full", *often, count=1)
        assert again.codes() == [0], again.outputs
        assert close(weights(tmp_path / "full"), whole)
        assert [row["step"] for row in read_metrics(metrics)] == [str(step) for step in range(1, STEPS + 1)]
    finally:
        if mounted:
            subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_missing_data_are_refused(start: Start, tmp_path: Path) -> None:
    ranks = start("nowhere", f"paths.data={tmp_path}/nowhere", count=1)
    assert ranks.codes() == [2] and f"{tmp_path}/nowhere" in ranks.outputs[0]
