"""A bar, or plain lines: what a run has reached and how fast it goes."""

from __future__ import annotations

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
from instructblip.training.callbacks.measuring import Measuring
from instructblip.training.datamodule import StepData


class Progressing(Callback):
    """A bar with loss in total and per recipe, samples/s and time left; plain lines where there is no terminal."""

    def __init__(self, config: TrainConfig, measuring: Measuring, steps: StepData) -> None:
        self.config, self.measuring, self.steps = config, measuring, steps
        self.console = Console()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()
        self.bar.start()
        self.task = self.bar.add_task("train", total=self.config.steps, completed=self.steps.first, note="")

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        done = batch.number + 1
        if self.measuring.row:
            note = self._note()
            self.bar.update(self.task, completed=done, note=note)
            if self.bar.disable:
                left = (time.perf_counter() - self.began) / (done - self.steps.first) * (self.config.steps - done)
                line = f"step {done} of {self.config.steps}  {note}  {left:.0f} s left"
                self.console.print(line, highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    def _note(self) -> str:
        row = self.measuring.row
        losses = [name for name in row if name == "train/loss" or name.startswith("train/loss/")]
        shown = [f"{name.removeprefix('train/').removeprefix('loss/')} {row[name]:.3f}" for name in losses]
        return "  ".join([*shown, f"{row['speed/samples_per_s']:.0f} samples/s"])
