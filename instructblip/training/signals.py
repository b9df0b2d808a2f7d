"""Signals that end a run: noted when they come, obeyed by all processes between the same two steps.

While a model is loaded there is nothing to save, so a signal ends the process at once. Lightning's own handlers are
kept out (`trainer.py`): they broadcast from within the handler, which hangs when one process alone gets the signal.
Nothing heavy is imported here, so that the handlers stand before torch is imported.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from instructblip.choices import Requeue
from instructblip.training.ranks import rank

HANDLED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)  # of several the first one counts
TIME_LIMIT = HANDLED[:2]  # SIGUSR1 by `#SBATCH --signal`, SIGUSR2 by submitit: the job is to come back
TERMINATED, TRY_AGAIN = 143, 75  # 128 + SIGTERM; EX_TEMPFAIL


class Interrupted(BaseException):
    """The run ends because of a signal, with everything it needs to go on written."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}")
        self.number = number


class Signals:
    """What this process was sent since `watched`."""

    def __init__(self) -> None:
        self.counts = [0] * len(HANDLED)
        self.training = False  # from the first step on: signals wait for a step's end
        self.before: dict[signal.Signals, Any] = {}  # the handlers that stood here

    def agreed(self, counts: Sequence[float]) -> signal.Signals | None:
        """The signal that ends the run, from `counts` summed over all processes."""
        return next((number for number, count in zip(HANDLED, counts, strict=True) if count), None)

    def received(self, number: int, _: object) -> None:
        """The handler."""
        self.counts[HANDLED.index(signal.Signals(number))] += 1
        if not self.training:
            raise Interrupted(signal.Signals(number))


@contextmanager
def watched(requeue: Requeue) -> Iterator[Signals]:
    """Handlers stand inside and are put back at the end; an `Interrupted` from inside ends the program.

    Its exit code is 143, or 75 with `Requeue.exit`; what was asked to be requeued is, before that.
    """
    signals = Signals()
    try:
        for number in HANDLED:
            signals.before[number] = signal.signal(number, signals.received)
        yield signals
    except Interrupted as stop:
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)  # nothing that still comes may change the exit code
        sys.exit(_leave(stop.number, requeue, signals))
    except BaseException:
        _put_back(signals)
        raise
    _put_back(signals)


def _put_back(signals: Signals) -> None:
    for number, handler in signals.before.items():
        signal.signal(number, handler)


def _leave(number: signal.Signals, requeue: Requeue, signals: Signals) -> int:
    """Has the job requeued; all processes leave together, or a launcher might kill the one that still asks for it."""
    own = signals.agreed(signals.counts)
    if own in TIME_LIMIT:
        number = own  # it came after a SIGTERM, as when SLURM pre-empts
    if rank() == 0:
        print(f"stopped by {number.name}; resume=auto goes on", file=sys.stderr, flush=True)
    try:
        handler: Any = signals.before.get(number)
        if _is_foreign(handler):
            handler(number, None)
        elif requeue is Requeue.scontrol and number in TIME_LIMIT and rank() == 0:
            _requeue(os.environ.get("SLURM_JOB_ID"))
    except SystemExit:
        pass  # submitit's handler, having requeued the job
    finally:
        if signals.training:
            _wait_for_others()
    return TRY_AGAIN if requeue is Requeue.exit and number is not signal.SIGINT else TERMINATED


def _is_foreign(handler: Any) -> bool:
    """Whether somebody else, as submitit, had a handler of their own: then coming back is theirs."""
    return callable(handler) and handler is not signal.default_int_handler


def _requeue(job: str | None) -> None:
    """Raises ValueError outside a SLURM job."""
    if job is None:
        raise ValueError("trainer.requeue=scontrol outside a SLURM job: SLURM_JOB_ID is not set")
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if done.returncode:
        print(f"job {job} could not be requeued ({done.stderr.strip()}); submit it again", file=sys.stderr, flush=True)


def _wait_for_others() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def outlive_the_job(_: int) -> None:
    """For a data worker, which gets its job's signals too: only its own parent ends it, when no step is left to read.

    Called in the worker. A thread waits for SIGTERM, since a handler is not told who sent it.
    """
    for number in HANDLED:
        if number is not signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
