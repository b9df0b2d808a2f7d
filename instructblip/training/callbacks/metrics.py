"""`metrics.csv`: what was logged, continued across resumes."""

from __future__ import annotations

import csv
import time
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructblip.data.steps import Step
from instructblip.files import replacing
from instructblip.training.callbacks.measuring import Measuring
from instructblip.training.datamodule import StepData
from instructblip.training.disk import Disk, append


class Metrics(Callback):
    """`metrics.csv`, one row every `log_every` steps, continued across resumes; rows of redone steps are dropped.

    The columns are the same all the way; what a row has no number for is left empty.
    """

    def __init__(self, run: Path, measuring: Measuring, steps: StepData, disk: Disk) -> None:
        self.path, self.measuring, self.steps, self.disk = run / "metrics.csv", measuring, steps, disk
        self.columns = ["step", *measuring.names, "seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()
        keep_rows(self.path, self.columns, self.steps.first)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], batch: Step, batch_idx: int
    ) -> None:
        if self.measuring.row:
            known = {name: f"{value:.8g}" for name, value in self.measuring.row.items()}
            row = {"step": batch.number + 1, **known, "seconds": f"{time.perf_counter() - self.began:.2f}"}
            with self.disk.writing(self.path):
                append_row(self.path, self.columns, row)


def keep_rows(path: Path, columns: list[str], last: int) -> None:
    """Begins a file of these columns, with the rows it has up to step `last`."""
    kept = [row for row in read_metrics(path) if int(row["step"]) <= last]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)


def append_row(path: Path, columns: list[str], row: dict[str, Any]) -> None:
    line = StringIO(newline="")
    csv.DictWriter(line, columns).writerow(row)
    append(path, line.getvalue())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file; a last line cut short by a crash is dropped."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]
