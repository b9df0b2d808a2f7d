"""The loss of one batch before and after training."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, Trainer

from instructblip.files import read_json, write_json
from instructblip.training.datamodule import StepData
from instructblip.training.module import TrainingModule


class FixedBatch(Callback):
    """The loss of one batch before and after training; the run is marked finished with both.

    Every process computes the whole of it, since a sharded model needs them all; the first writes.
    """

    def __init__(self, run: Path, steps: StepData) -> None:
        self.path, self.finished, self.steps = run / "fixed_batch.json", run / "finished.json", steps

    def on_train_start(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        self.batches = self.steps.held_back()
        if trainer.strategy.broadcast(self.path.is_file()):  # as the first process sees it
            return
        before = pl_module.fixed_loss(self.batches)
        if trainer.is_global_zero:
            write_json(self.path, {"before": before})

    def on_train_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        if pl_module.done < self.steps.config.steps:
            return
        after = pl_module.fixed_loss(self.batches)
        if trainer.is_global_zero:
            losses = {**read_json(self.path), "after": after}
            write_json(self.finished, {"steps": pl_module.done, "fixed_batch": losses})
            print(f"loss of one fixed batch: {losses['before']:.3f} before, {losses['after']:.3f} after training")
