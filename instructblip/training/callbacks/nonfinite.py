"""Steps whose loss or gradient is no number: listed, skipped up to a limit, or the end of the run."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from instructblip.choices import OnNonFinite
from instructblip.config.training import TrainConfig
from instructblip.data.steps import Step
from instructblip.training.disk import Disk, append
from instructblip.training.module import TrainingModule


class NonFinite(Callback):
    """`nonfinite.jsonl`, a line for each; stands before whatever saves, so that nothing is saved of a run it ends."""

    def __init__(self, run: Path, config: TrainConfig, disk: Disk) -> None:
        self.path, self.settings, self.disk = run / "nonfinite.jsonl", config.trainer, disk

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: TrainingModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        """Raises FloatingPointError on all processes where the run is not to go on."""
        if (origins := pl_module.bad_origins) is None:
            return
        loss, skipped = outputs["loss"].item(), pl_module.skipped
        where = "; ".join(map(str, origins)) or "nothing that is not finite when computed once more"
        message = f"step {batch.number}: loss {loss}, no update. {where}"
        if trainer.is_global_zero:
            line = {"step": batch.number, "loss": str(loss), "skipped": skipped, "origins": list(map(asdict, origins))}
            with self.disk.writing(self.path):
                append(self.path, json.dumps(line, ensure_ascii=False) + "\n")
        if self.settings.on_nonfinite is OnNonFinite.stop:
            raise FloatingPointError(f"{message} (trainer.on_nonfinite=skip leaves such steps out)")
        if skipped > self.settings.max_nonfinite:
            raise FloatingPointError(f"{message} That is {skipped} of them, trainer.max_nonfinite is {skipped - 1}")
        if trainer.is_global_zero:
            print(f"{message} (skipped, {skipped} so far)", file=sys.stderr, flush=True)
