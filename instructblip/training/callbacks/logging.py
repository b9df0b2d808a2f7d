"""What was measured, handed on to TensorBoard and Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step
from instructblip.training.callbacks.measuring import Measuring
from instructblip.training.datamodule import StepData
from instructblip.training.disk import Disk
from instructblip.training.loggers import close, log_text, loggers


class Logging(Callback):
    """Every row of `measuring` goes to each logger; so does what `values` and `texts` are told."""

    def __init__(self, run: Path, config: TrainConfig, measuring: Measuring, steps: StepData, disk: Disk) -> None:
        self.run, self.config, self.measuring, self.steps, self.disk = run, config, measuring, steps, disk
        self.loggers: list[Logger] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.loggers = loggers(self.config, self.run, self.steps.first)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], batch: Step, batch_idx: int
    ) -> None:
        if self.measuring.row:
            self.values(self.measuring.row, batch.number + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(failed=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close(failed=True)

    def values(self, row: Mapping[str, float], step: int) -> None:
        for logger in self.loggers:
            with self.disk.writing(self._place(logger)):
                logger.log_metrics(dict(row), step)

    def texts(self, name: str, rows: list[dict[str, str]], step: int) -> None:
        """A table of texts; all rows have the same columns."""
        for logger in self.loggers:
            with self.disk.writing(self._place(logger)):
                log_text(logger, name, rows, step)

    def _close(self, failed: bool) -> None:
        for logger in self.loggers:
            with self.disk.writing(self._place(logger)):
                close(logger, failed)
        self.loggers = []

    def _place(self, logger: Logger) -> Path:
        return Path(logger.log_dir or self.run)
