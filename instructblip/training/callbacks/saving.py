"""The ledger's counts and the checkpoints that carry them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructblip.choices import OnFullDisk
from instructblip.config.training import TrainConfig
from instructblip.data.lineage import Seen, merge
from instructblip.data.steps import Step
from instructblip.files import write_json
from instructblip.recipes import fingerprint, plain
from instructblip.training.changes import meaning
from instructblip.training.checkpoint import Record, save
from instructblip.training.datamodule import TrainingSet
from instructblip.training.disk import Unwritable
from instructblip.training.ledger import Ledger
from instructblip.training.module import TrainingModule
from instructblip.training.state import TrainState


class Counting(Callback):
    """Enters every step in the ledger, on every process; the sum over them is taken where a checkpoint is written."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        self.ledger.add(batch)


class Checkpointing(Callback):
    """A checkpoint every `checkpoint_every` steps, after a validation, at a stop and after the last step.

    Every process gathers its part of the state, the first writes, and no one goes on before it is safe.
    """

    def __init__(
        self, run: Path, config: TrainConfig, data: TrainingSet, inherited: Sequence[Seen], ledger: Ledger
    ) -> None:
        self.run, self.config, self.data, self.inherited, self.ledger = run, config, data, list(inherited), ledger
        self.failures = 0

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: TrainingModule,
        outputs: dict[str, Any],
        batch: Step,
        batch_idx: int,
    ) -> None:
        """Raises Unwritable on all processes unless `on_full_disk` lets the run go on."""
        done, stopping = batch.number + 1, pl_module.stopped_by is not None
        if stopping or pl_module.validated or is_saved(done, self.config):
            self.ledger.gather(lambda own: trainer.strategy.reduce(own.to(pl_module.device), reduce_op="sum").cpu())
            state = pl_module.state()
            fault = self._fault(done, state, pl_module) if trainer.is_global_zero else None
            fault = trainer.strategy.broadcast(fault)
            last = stopping or done == self.config.steps  # then nothing would come after it
            if fault and (last or self.config.trainer.on_full_disk is OnFullDisk.stop):
                raise Unwritable(fault)
        pl_module.validated, pl_module.selection = False, None
        trainer.should_stop = trainer.should_stop or stopping

    def _fault(self, done: int, state: TrainState, module: TrainingModule) -> str | None:
        """Writes, or says why that was not possible."""
        try:
            self._write(done, state, module)
        except OSError as error:
            self.failures += 1
            print(f"checkpoint {self.failures} that could not be written: {error}", file=sys.stderr, flush=True)
            return str(error)
        return None

    def _write(self, done: int, state: TrainState, module: TrainingModule) -> None:
        ledger = self.ledger.facts(done)
        record = Record(
            step=done,
            base=module.base,
            lineage=merge(self.inherited, self.data.lineage(done)),
            ledger=ledger,
            selection=module.selection,
            skipped=module.skipped,
            learning_rate=module.learning_rate,
            config={key: plain(value) for key, value in vars(self.config).items()},
            config_hash=fingerprint(meaning(self.config)),
        )
        save(self.run, record, state, self.config.trainer.keep_checkpoints)
        write_json(self.run / "ledger.json", ledger)
        if alarm := self.ledger.alarm(done):
            print(f"{alarm} ({self.run / 'ledger.json'})")


def is_saved(done: int, config: TrainConfig) -> bool:
    """Whether a checkpoint is written after `done` steps in any case."""
    return done % config.trainer.checkpoint_every == 0 or done == config.steps
