"""Runs that are stopped, starved, damaged or hang: exit code, message, and a second start that ends as if nothing was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instructblip.training.checkpoint import WEIGHTS, last_checkpoint
from tests.conftest import ROOT, World

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
STEPS = 20
FAULTY = ("-m", "tests.fixtures.faulty")


class Ranks:
    """A run in two processes that find each other as torchrun's do."""

    def __init__(self, arguments: Sequence[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        together = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.processes = [
            subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)}, start_new_session=True,
            )
            for rank in range(2)
        ]  # fmt: skip

    def codes(self, timeout: float = 200) -> list[int]:
        """When all have ended; what they wrote is in `errors`."""
        until = time.monotonic() + timeout
        try:
            self.errors = [p.communicate(timeout=max(1, until - time.monotonic()))[1] for p in self.processes]
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
        return [process.returncode for process in self.processes]


Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def command(world: World, runs: Path) -> Command:
    def make(name: str, *more: str, program: Sequence[str] = ("train.py",)) -> list[str]:
        return [
            *program, "experiment=miniature", f"steps={STEPS}", "batch_size=8", "group_size=4", f"name={name}",
            "trainer.micro_batch_size=4", "trainer.num_workers=1", "trainer.log_every=1", "trainer=ddp",
            "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=fp32", "trainer.num_threads=1",
            "trainer.checkpoint_every=1000", "resume=auto", f"paths.data={world.data}", f"paths.runs={runs}", *more,
        ]  # fmt: skip

    return make


@pytest.fixture(scope="module")
def whole(command: Command, runs: Path) -> dict[str, torch.Tensor]:
    """The weights of an undisturbed run."""
    ranks = Ranks(command("whole"))
    assert ranks.codes() == [0, 0], ranks.errors
    return weights(runs / "whole")


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = last_checkpoint(run)
    assert found and found.step == STEPS
    return load_file(found.folder / WEIGHTS)


def ends_as(whole: dict[str, torch.Tensor], run: Path, arguments: Sequence[str]) -> None:
    ranks = Ranks(arguments)
    assert ranks.codes() == [0, 0], ranks.errors
    own = weights(run)
    assert all(torch.equal(own[name], whole[name]) for name in whole)


def rows(run: Path, count: int, ranks: Ranks) -> None:
    """Waits until a run has logged `count` steps."""
    until = time.monotonic() + 150
    while time.monotonic() < until and all(process.poll() is None for process in ranks.processes):
        path = run / "metrics.csv"
        if path.is_file() and path.read_text().count("\n") > count:
            return
        time.sleep(0.002)
    raise AssertionError(f"{run} did not get to step {count}: {[p.poll() for p in ranks.processes]}")


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
    name: str, sent: list[tuple[int, int]], requeue: str, code: int, command: Command, runs: Path,
    whole: dict[str, torch.Tensor],
) -> None:  # fmt: skip
    arguments = command(name, f"trainer.requeue={requeue}")
    ranks = Ranks(arguments)
    rows(runs / name, 3, ranks)
    for place, (rank, number) in enumerate(sent):
        if place > 1:
            time.sleep(0.01)
        ranks.processes[rank].send_signal(number)
    assert ranks.codes() == [code, code], ranks.errors
    assert "resume=auto goes on" in ranks.errors[0]
    found = last_checkpoint(runs / name)
    assert found and 3 <= found.step < STEPS
    ends_as(whole, runs / name, arguments)


def test_a_signal_while_loading_ends_the_run(command: Command, runs: Path) -> None:
    ranks = Ranks(command("loading"))
    until = time.monotonic() + 60
    while not (runs / "loading/.lock").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    for process in ranks.processes:
        process.send_signal(signal.SIGTERM)
    assert ranks.codes(60) == [143, 143], ranks.errors


def test_a_lost_process_ends_the_other(command: Command, runs: Path, whole: dict[str, torch.Tensor]) -> None:
    arguments = command("lost", "trainer.checkpoint_every=4")
    ranks = Ranks([*FAULTY, "kill", "1", "6", *arguments[1:]])
    assert ranks.codes(90) == [1, -signal.SIGKILL], ranks.errors
    assert "rank 0 ended at step 6" in ranks.errors[0]
    ends_as(whole, runs / "lost", arguments)


def test_a_hanging_process_ends_the_other(command: Command, runs: Path) -> None:
    ranks = Ranks([*FAULTY, "stop", "1", "3", *command("hanging", "trainer.timeout=10")[1:]])
    try:
        assert ranks.processes[0].wait(120) == 1
        error = ranks.processes[0].communicate()[1]
        assert "rank 0: step 3 has not ended after 10 s" in error and "Thread" in error and "module.py" in error
        assert "training_step" in (runs / "hanging/hanging-rank0.txt").read_text()
    finally:
        ranks.processes[1].kill()
        ranks.processes[1].communicate()


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_a_loss_on_one_process_that_is_no_number(fault: str, command: Command, runs: Path) -> None:
    name = f"stopped-{fault}"
    ranks = Ranks([*FAULTY, fault, "1", "5", *command(name, "trainer.checkpoint_every=4")[1:]])
    assert ranks.codes() == [1, 1], ranks.errors
    where = "language_projection" if fault == "nan" else "its gradient of"
    for error in ranks.errors:
        assert f"rank 1, micro-batch 0: {where}" in error
    found = last_checkpoint(runs / name)
    assert found and found.step == 4 and found.record.skipped == 0


def test_a_step_that_is_no_number_is_skipped(command: Command, runs: Path) -> None:
    ranks = Ranks([*FAULTY, "nan", "1", "5", *command("skipped", "trainer.on_nonfinite=skip")[1:]])
    assert ranks.codes() == [0, 0], ranks.errors
    (line,) = map(json.loads, (runs / "skipped/nonfinite.jsonl").read_text().splitlines())
    assert line["step"] == 5 and [origin["rank"] for origin in line["origins"]] == [1]
    assert line["origins"][0]["uids"]
    found = last_checkpoint(runs / "skipped")
    assert found and found.step == STEPS and found.record.skipped == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(found.folder / WEIGHTS).values())


def test_damage_a_second_process_other_counts_and_the_end(
    command: Command, runs: Path, whole: dict[str, torch.Tensor]
) -> None:
    """One run, one thing after another: a damaged checkpoint, a held lock, another config, other workers, finished."""
    arguments = command("long", "trainer.checkpoint_every=4")
    ranks = Ranks([*FAULTY, "kill", "0", "9", *arguments[1:]])
    ranks.codes()
    newest = last_checkpoint(runs / "long")
    assert newest and newest.step == 8
    (newest.folder / WEIGHTS).write_bytes(b"")
    changed = Ranks([*arguments, "optim.lr=0.5"])
    assert changed.codes(90)[0] == 2 and "is now 0.5" in changed.errors[0]
    ranks = Ranks([*FAULTY, "kill", "1", "14", *arguments[1:], "trainer.num_workers=0"])
    rows(runs / "long", 1, ranks)
    second = Ranks(arguments)
    assert second.codes(90)[0] == 2 and "is being written by host" in second.errors[0]
    ranks.codes()
    told = ranks.errors[0]
    assert told.count("is damaged") == 1 and "going on from step 4" in told
    ends_as(whole, runs / "long", [*arguments, "trainer.num_workers=2"])
    ended = Ranks(arguments)
    assert ended.codes() == [0, 0], "a finished run says so"
