"""Validation every so many steps: the selection curve, answers to read, and the score that checkpoints are kept by."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step
from instructblip.files import replacing
from instructblip.models.instructblip import InstructBlip
from instructblip.models.loaded import Loaded
from instructblip.models.sharding import is_sharded
from instructblip.models.tokenizers import tokenizers
from instructblip.training.callbacks.logging import Logging
from instructblip.training.callbacks.metrics import append_row, keep_rows, read_metrics
from instructblip.training.datamodule import StepData
from instructblip.training.disk import Disk, append
from instructblip.training.module import TrainingModule
from instructblip.training.validation import Place, Report, Validation

SAMPLES = "samples.jsonl"


class Validating(Callback):
    """`selection.csv` (step, mean score, each value) and `samples.jsonl`, every `validation.every` steps.

    Also before the first step, where it is the score of what the run begins with, and finds whatever is missing; and
    after the last. A run that is stopped at such a step validates when it goes on. Stands before whoever saves:
    `validated` and `selection` of the module are what a checkpoint says. What the files hold of steps that are done
    again is dropped.
    """

    def __init__(self, run: Path, config: TrainConfig, steps: StepData, logging: Logging | None, disk: Disk) -> None:
        self.run, self.config, self.steps, self.logging, self.disk = run, config, steps, logging, disk
        self.validation = Validation(config, steps.data.selection)
        self.tokenizers = tokenizers(config.model)
        self.columns = ["step", "selection", *self.validation.names, "seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        first, path, missing = self.steps.first, self.run / "selection.csv", False
        if trainer.is_global_zero:
            keep_rows(path, self.columns, first)
            _keep_samples(self.run / SAMPLES, first)
            missing = first not in [int(row["step"]) for row in read_metrics(path)]
        if trainer.strategy.broadcast(missing) and (first == 0 or is_validated(first, self.config)):
            self._validate(trainer, pl_module, first)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TrainingModule, outputs: dict[str, Any], batch: Step, batch_idx: int
    ) -> None:
        done = batch.number + 1
        if is_validated(done, self.config) and pl_module.stopped_by is None:  # then there is little time left
            pl_module.selection = self._validate(trainer, pl_module, done)
            pl_module.validated = True

    def _validate(self, trainer: Trainer, module: TrainingModule, step: int) -> float | None:
        began = time.perf_counter()
        assert isinstance(module.model, InstructBlip)  # the first stage has no selection
        loaded = Loaded(self.config.model, module.model, self.tokenizers, "")
        together = is_sharded(module.model.parameters())  # each generates for as many steps as its answers need, so
        place = Place(0, 1) if together else Place(trainer.global_rank, trainer.world_size)  # all do all, in step
        report = self.validation.report(loaded, place, trainer.precision_plugin.forward_context())
        if trainer.is_global_zero:
            self._write(report, step, time.perf_counter() - began)
        return report.score

    def _write(self, report: Report, step: int, seconds: float) -> None:
        selection = {} if report.score is None else {"selection": report.score}
        values = selection | report.values
        row = {"step": step, **{name: f"{value:.8g}" for name, value in values.items()}, "seconds": f"{seconds:.2f}"}
        with self.disk.writing(self.run / "selection.csv"):
            append_row(self.run / "selection.csv", self.columns, row)
        with self.disk.writing(self.run / SAMPLES):
            lines = [json.dumps({"step": step, **row}, ensure_ascii=False) + "\n" for row in report.samples]
            append(self.run / SAMPLES, "".join(lines))
        if self.logging:
            self.logging.values({**report.values, **{f"val/{name}": value for name, value in selection.items()}}, step)
            if report.samples:
                self.logging.texts("samples", report.samples, step)
        told = "  ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in values.items())
        print(f"validated at step {step}: {told}  in {seconds:.0f} s")


def is_validated(done: int, config: TrainConfig) -> bool:
    """Whether a validation comes after `done` steps."""
    every = config.validation.every
    return every is not None and (done % every == 0 or done == config.steps)


def _keep_samples(path: Path, last: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last]
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
