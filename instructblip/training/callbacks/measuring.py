"""The numbers of a run: losses and shares as the steps report them, speed and memory as this side sees them."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step
from instructblip.models.instructblip import InstructBlip
from instructblip.training.devices import peak
from instructblip.training.flops import Counts, StepFlops
from instructblip.training.module import TrainingModule

GIB = 2**30
SPEED = (
    "speed/samples_per_s", "speed/tokens_per_s", "speed/tflops_per_s", "speed/mfu", "speed/data_wait",
    "memory/gpu_gib", "memory/host_gib",
)  # fmt: skip


class Measuring(Callback):
    """`row` holds the numbers of the steps since the last log step, and is empty after every other step.

    On every process. Losses stay on the device until a log step; there a loss is the mean over the steps, and a figure
    of the objective, such as a dataset's loss, the mean over its tokens in them. The first row after a resume covers
    the steps since then. `figures` are the objective's names.

    `speed/...` counts steps alone, not checkpoints or validation: samples and text tokens (prompt and response) a
    second over all processes, model TFLOPs (`flops.py`) a second on each, and their share of what the device can do
    in bf16 (`mfu`, where `devices.py` knows it). `data_wait` is the share of that time in which the process that
    waited longest for data did so. `memory/...` are peaks of the fullest process since it began: allocated on its GPU,
    resident on its host (without data workers).
    """

    def __init__(self, config: TrainConfig, figures: Sequence[str], recipes: Sequence[str]) -> None:
        self.every, self.last = config.trainer.log_every, config.steps
        self.figures = [f"train/{name}" for name in (*figures, *(f"gradient_share/{recipe}" for recipe in recipes))]
        self.names = ["train/loss", "train/grad_norm", "train/lr", *self.figures, *SPEED]
        self.row: dict[str, float] = {}
        self.ended = 0.0  # when the last step's last callback was done

    def setup(self, trainer: Trainer, pl_module: TrainingModule, stage: str) -> None:  # type: ignore[override]
        model = pl_module.model  # before anything is sharded; of BLIP-2's first stage nobody has counted the FLOPs
        self.flops_of = StepFlops(model) if isinstance(model, InstructBlip) else lambda counts: math.nan

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin()
        device = pl_module.device
        self.peak = (peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None) or math.nan
        self.ended = time.perf_counter()

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, batch: Step, batch_idx: int
    ) -> None:
        self.started = time.perf_counter()
        self.waited += self.started - self.ended

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TrainingModule, outputs: dict[str, Any], batch: Step, batch_idx: int
    ) -> None:
        done, self.row = batch.number + 1, {}
        self._add(outputs, batch)
        if done % self.every == 0 or done == self.last:
            losses = self._losses()  # waits for the device, so before the clock is read
            self.worked += time.perf_counter() - self.started
            lr = math.nan if pl_module.learning_rate is None else pl_module.learning_rate  # no update yet
            measured = {**losses, "train/lr": lr, **self._speed(trainer, pl_module)}
            self.row = {name: value for name, value in measured.items() if math.isfinite(value)}
            self._begin()
        else:
            self.worked += time.perf_counter() - self.started

    def _begin(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.samples = self.tokens = 0
        self.flops = self.waited = self.worked = 0.0

    def _add(self, outputs: dict[str, Any], batch: Step) -> None:
        self.steps += [outputs] if outputs else []
        for counts in map(Counts.of, batch.batches):
            self.samples += int(counts.rows)
            self.tokens += int(counts.prompt_tokens + counts.response_tokens)
            self.flops += self.flops_of(counts)

    def _losses(self) -> dict[str, float]:
        """From the device, of the steps whose loss was a number. NaN is what none of them had anything of."""
        if not self.steps:
            return {}
        good = torch.stack([step["loss"] for step in self.steps]).isfinite()
        kept = {name: torch.stack([step[name] for step in self.steps])[good] for name in self.steps[0]}
        scalars = [name for name in ("loss", "grad_norm") if name in kept]
        sums, over = kept["figures"].sum(0)  # (N,) each
        means = [*(kept[name].mean() for name in scalars), *(sums / over)]
        names = [*(f"train/{name}" for name in scalars), *self.figures]
        return dict(zip(names, torch.stack(means).tolist(), strict=True))

    def _speed(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        device, seconds = pl_module.device, self.waited + self.worked
        gpu = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else math.nan
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        total = torch.tensor([self.samples, self.tokens, self.flops / 1e12], dtype=torch.float64, device=device)
        most = torch.tensor([seconds, self.waited / seconds, gpu, host], dtype=torch.float64, device=device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        seconds, wait, gpu, host = most.tolist()
        samples, tokens, tflops = (total / seconds).tolist()
        each = tflops / trainer.world_size
        return dict(zip(SPEED, (samples, tokens, each, each * 1e12 / self.peak, wait, gpu, host), strict=True))


class Ending(Callback):
    """Stands last of all callbacks: what comes after it, until the next step begins, is waiting for data."""

    def __init__(self, measuring: Measuring) -> None:
        self.measuring = measuring

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], batch: Step, batch_idx: int
    ) -> None:
        self.measuring.ended = time.perf_counter()
