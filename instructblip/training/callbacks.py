"""What happens beside the training step: progress, the metrics file, checkpoints, unreadable pictures."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
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

from instructblip.config import TrainConfig
from instructblip.data.lineage import Seen, merge
from instructblip.data.steps import Step
from instructblip.files import read_json, write_json
from instructblip.training import checkpoint
from instructblip.training.datamodule import StepData, TrainingSet
from instructblip.training.ledger import Ledger
from instructblip.training.module import TrainingModule


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


class Metrics(Callback):
    """`metrics.csv`, one row every `log_every` steps, continued across resumes; rows of redone steps are dropped."""

    def __init__(self, run: Path, config: TrainConfig, recipes: Sequence[str], first: int) -> None:
        self.path, self.every, self.last = run / "metrics.csv", config.trainer.log_every, config.steps
        self.columns = ["step", "loss", *(f"loss/{name}" for name in recipes), "lr", "seconds"]
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


class Counting(Callback):
    """Enters every step in the ledger, on every process; the sum over them is taken where a checkpoint is written."""

    def __init__(self, config: TrainConfig, ledger: Ledger) -> None:
        self.config, self.ledger = config, ledger

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        self.ledger.add(batch)
        if is_saved(batch.number + 1, self.config):
            self.ledger.gather(lambda own: trainer.strategy.reduce(own.to(pl_module.device), reduce_op="sum").cpu())


class Checkpointing(Callback):
    """A checkpoint every `checkpoint_every` steps and after the last one, and the ledger as it then stands."""

    def __init__(
        self, run: Path, config: TrainConfig, data: TrainingSet, inherited: Sequence[Seen], ledger: Ledger
    ) -> None:
        self.run, self.config, self.data, self.inherited, self.ledger = run, config, data, list(inherited), ledger

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: TrainingModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        done = batch.number + 1
        if is_saved(done, self.config):
            lineage = merge(self.inherited, self.data.lineage(done))
            keep = self.config.trainer.keep_checkpoints
            ledger = self.ledger.facts(done)
            checkpoint.save(self.run, done, pl_module.model, trainer.optimizers[0], lineage, keep, ledger)
            write_json(self.run / "ledger.json", ledger)
            if alarm := self.ledger.alarm(done):
                print(f"{alarm} ({self.run / 'ledger.json'})")


class BadMedia(Callback):
    """Lists unreadable pictures in `bad_media-rank<r>.txt` and stops the run past `max_bad_media` of them."""

    def __init__(self, run: Path, config: TrainConfig) -> None:
        self.run, self.limit, self.count = run, config.trainer.max_bad_media, 0

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
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"step {batch.number}: {line}\n" for line in batch.bad)
        if self.count > self.limit:
            raise ValueError(
                f"{self.count} pictures could not be read, the limit is {self.limit} (see {path}): {batch.bad[-1]}"
            )


class FixedBatch(Callback):
    """The loss of one batch before and after training; the run is marked finished with both."""

    def __init__(self, run: Path, steps: StepData) -> None:
        self.path, self.finished, self.steps = run / "fixed_batch.json", run / "finished.json", steps

    def on_train_start(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        self.batches = self.steps.held_back()
        if not self.path.is_file() and trainer.is_global_zero:
            write_json(self.path, {"before": pl_module.fixed_loss(self.batches)})

    def on_train_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        if pl_module.done == self.steps.config.steps and trainer.is_global_zero:
            losses = {**read_json(self.path), "after": pl_module.fixed_loss(self.batches)}
            write_json(self.finished, {"steps": pl_module.done, "fixed_batch": losses})
            print(f"loss of one fixed batch: {losses['before']:.3f} before, {losses['after']:.3f} after training")


def is_saved(done: int, config: TrainConfig) -> bool:
    """Whether a checkpoint is written after `done` steps."""
    return done % config.trainer.checkpoint_every == 0 or done == config.steps


def finite(outputs: dict[str, Any]) -> dict[str, float]:
    """The losses as numbers; a recipe that the step did not hold has none."""
    losses = {name: value.item() for name, value in outputs.items()}
    return {name: value for name, value in losses.items() if math.isfinite(value)}


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file; a last line cut short by a crash is dropped."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]
