"""Unreadable pictures: listed, and too many of them refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step
from instructblip.training.disk import Disk, append


class BadMedia(Callback):
    """Lists unreadable pictures in `bad_media-rank<r>.txt` and stops the run past `max_bad_media` of them."""

    def __init__(self, run: Path, config: TrainConfig, disk: Disk) -> None:
        self.run, self.limit, self.disk, self.count = run, config.trainer.max_bad_media, disk, 0

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        if not batch.bad:
            return
        self.count += len(batch.bad)
        path = self.run / f"bad_media-rank{trainer.global_rank}.txt"
        with self.disk.writing(path):
            append(path, "".join(f"step {batch.number}: {line}\n" for line in batch.bad))
        if self.count > self.limit:
            raise ValueError(
                f"{self.count} pictures could not be read, the limit is {self.limit} (see {path}): {batch.bad[-1]}"
            )
