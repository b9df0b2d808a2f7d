"""The ledger's counts and the checkpoints that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructblip.config.training import TrainConfig
from instructblip.data.lineage import Seen, merge
from instructblip.data.steps import Step
from instructblip.files import write_json
from instructblip.training import checkpoint
from instructblip.training.datamodule import TrainingSet
from instructblip.training.ledger import Ledger
from instructblip.training.module import TrainingModule
from instructblip.training.state import TrainState


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
    """A checkpoint every `checkpoint_every` steps and after the last one, and the ledger as it then stands.

    Every process gathers its part of the state, the first writes.
    """

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
            state = pl_module.state()
            if trainer.is_global_zero:
                self._write(done, state, pl_module.base)

    def _write(self, done: int, state: TrainState, base: str) -> None:
        lineage = merge(self.inherited, self.data.lineage(done))
        ledger = self.ledger.facts(done)
        checkpoint.save(self.run, done, state, base, lineage, self.config.trainer.keep_checkpoints, ledger)
        write_json(self.run / "ledger.json", ledger)
        if alarm := self.ledger.alarm(done):
            print(f"{alarm} ({self.run / 'ledger.json'})")


def is_saved(done: int, config: TrainConfig) -> bool:
    """Whether a checkpoint is written after `done` steps."""
    return done % config.trainer.checkpoint_every == 0 or done == config.steps
