"""`metrics.csv`: what was logged, continued across resumes."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step
from instructblip.training.callbacks.progress import finite


class Metrics(Callback):
    """`metrics.csv`, one row every `log_every` steps, continued across resumes; rows of redone steps are dropped."""

    def __init__(self, run: Path, config: TrainConfig, figures: Sequence[str], first: int) -> None:
        self.path, self.every, self.last = run / "metrics.csv", config.trainer.log_every, config.steps
        self.columns = ["step", "loss", *figures, "lr", "seconds"]
        self.first = first

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()
        kept = [row for row in read_metrics(self.path) if int(row["step"]) <= self.first]
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(kept)

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        done = batch.number + 1
        if done % self.every and done != self.last:
            return
        known = {name: f"{value:.8g}" for name, value in finite(outputs).items()}
        row = {"step": done, **known, "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.8g}"}
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerow({**row, "seconds": f"{time.perf_counter() - self.began:.2f}"})


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file; a last line cut short by a crash is dropped."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]
