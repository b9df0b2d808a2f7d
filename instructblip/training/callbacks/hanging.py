"""A process that hangs, or lost another one, ends and says where it was."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step

FAILED = 1


class Hanging(Callback):
    """Ends this process when a step takes longer than `trainer.timeout`: another one hangs, and all would wait for it.

    Only the step itself is timed, not what is saved, validated or read between two steps. The stacks of all threads go
    to stderr and to `hanging-rank<r>.txt`. Stands first, so that its clock stops before other callbacks begin.
    """

    def __init__(self, run: Path, config: TrainConfig) -> None:
        self.run, self.timeout = run, config.trainer.timeout
        self.clock: threading.Timer | None = None
        self.step: int | None = None

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, batch: Step, batch_idx: int
    ) -> None:
        self.step = batch.number
        self.clock = threading.Timer(self.timeout, self._end, (trainer, batch.number))
        self.clock.daemon = True
        self.clock.start()

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()
        if isinstance(exception, Exception):
            where = "before the first step" if self.step is None else f"at step {self.step}"
            print(f"rank {trainer.global_rank} ended {where}: {exception}", file=sys.stderr, flush=True)

    def _stop(self) -> None:
        if self.clock:
            self.clock.cancel()

    def _end(self, trainer: Trainer, step: int) -> None:
        text = (
            f"rank {trainer.global_rank}: step {step} has not ended after {self.timeout} s (trainer.timeout), so this "
            f"process or another one hangs; what this one's threads were doing:\n"
        )
        with (self.run / f"hanging-rank{trainer.global_rank}.txt").open("w", encoding="utf-8") as file:
            for stream in (file, sys.stderr):
                stream.write(text)
                stream.flush()
                faulthandler.dump_traceback(stream, all_threads=True)
        if launcher := trainer.strategy.launcher:
            launcher.kill(signal.SIGKILL)  # processes that Lightning started
        os._exit(FAILED)  # the main thread may wait for ever
