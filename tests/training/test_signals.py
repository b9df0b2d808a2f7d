"""Signals: flags while training, an end at once while loading, the handlers of others, exit codes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from instructblip.choices import Requeue
from instructblip.training.signals import HANDLED, Interrupted, Signals, watched


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_while_training_a_signal_is_noted_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with watched(Requeue.never) as signals:
        signals.training = True
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signals.agreed(signals.counts) is signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("number", "requeue", "code"),
    [
        (signal.SIGTERM, Requeue.never, 143), (signal.SIGUSR1, Requeue.never, 143), (signal.SIGINT, Requeue.exit, 143),
        (signal.SIGTERM, Requeue.exit, 75), (signal.SIGUSR1, Requeue.exit, 75), (signal.SIGUSR2, Requeue.exit, 75),
    ],
)  # fmt: skip
def test_while_loading_a_signal_ends_the_program(number: int, requeue: Requeue, code: int) -> None:
    with pytest.raises(SystemExit) as ended, watched(requeue):
        os.kill(os.getpid(), number)
    assert ended.value.code == code
    assert all(signal.getsignal(other) is signal.SIG_IGN for other in HANDLED), "a second one changes nothing"


def test_time_limit_before_termination_before_the_keyboard() -> None:
    agreed = Signals().agreed
    assert agreed([0, 0, 0, 0]) is None
    assert agreed([0, 0, 1, 2]) is signal.SIGTERM and agreed([3, 0, 1, 0]) is signal.SIGUSR1


def test_scontrol_is_asked_at_the_time_limit_and_not_when_cancelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    told = tmp_path / "told"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    for number in (signal.SIGTERM, signal.SIGUSR1):
        with pytest.raises(SystemExit), watched(Requeue.scontrol):
            raise Interrupted(number)
    assert told.read_text() == "requeue 17\n"


def test_a_handler_that_stood_before_is_called_when_all_is_safe() -> None:
    """As submitit's, which requeues the job and leaves with a code of its own."""
    called: list[int] = []

    def theirs(number: int, _: object) -> None:
        called.append(number)
        raise SystemExit(-1)

    signal.signal(signal.SIGUSR2, theirs)
    with pytest.raises(SystemExit) as ended, watched(Requeue.never) as signals:
        os.kill(os.getpid(), signal.SIGCONT)
        signals.training = True
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert not called, "not before the checkpoint is written"
        signals.training = False  # no other process to wait for
        raise Interrupted(signal.SIGTERM)
    assert called == [signal.SIGUSR2] and ended.value.code == 143


def test_submitit_requeues_through_its_own_handler(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    job_environment = pytest.importorskip("submitit.core.job_environment", reason="needs the extra slurm")
    from submitit.core.utils import DelayedSubmission, JobPaths

    class Work:
        def __call__(self) -> None: ...

        def checkpoint(self) -> Any:
            return DelayedSubmission(self)

    class Here(job_environment.JobEnvironment):  # type: ignore[misc, name-defined]
        def __new__(cls) -> Any:
            return object.__new__(cls)

        global_rank, requeued = 0, False

        def _requeue(self, countdown: int) -> None:
            Here.requeued = True

    delayed = DelayedSubmission(Work())
    delayed.set_timeout(60, 3)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    Here()._handle_signals(JobPaths(tmp_path, "17", 0), delayed)
    with pytest.raises(SystemExit) as ended, watched(Requeue.never):
        os.kill(os.getpid(), signal.SIGUSR2)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    assert Here.requeued and ended.value.code == 143
