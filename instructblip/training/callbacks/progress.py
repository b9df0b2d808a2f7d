"""A bar, or plain lines: what a run has reached and how fast it goes."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step


class Progressing(Callback):
    """A bar with loss in total and per recipe, samples/s and time left; plain lines where there is no terminal."""

    def __init__(self, config: TrainConfig, first: int) -> None:
        self.config, self.first = config, first
        self.console = Console()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()
        self.bar.start()
        self.task = self.bar.add_task("train", total=self.config.steps, completed=self.first, note="")

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        done = batch.number + 1
        if done % self.config.trainer.log_every == 0 or done == self.config.steps:
            note = self._note(outputs, done)
            self.bar.update(self.task, completed=done, note=note)
            if self.bar.disable:
                left = (time.perf_counter() - self.began) / (done - self.first) * (self.config.steps - done)
                line = f"step {done} of {self.config.steps}  {note}  {left:.0f} s left"
                self.console.print(line, highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    def _note(self, outputs: dict[str, Any], done: int) -> str:
        seconds = time.perf_counter() - self.began
        rate = (done - self.first) * self.config.batch_size / seconds
        losses = [f"{name.removeprefix('loss/')} {value:.3f}" for name, value in finite(outputs).items()]
        return "  ".join([*losses, f"{rate:.0f} samples/s"])


def finite(outputs: dict[str, Any]) -> dict[str, float]:
    """The losses as numbers; a recipe that the step did not hold has none."""
    losses = {name: value.item() for name, value in outputs.items()}
    return {name: value for name, value in losses.items() if math.isfinite(value)}
