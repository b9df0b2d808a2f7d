"""Going on from a run's last good checkpoint."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, Trainer

from instructblip.training.checkpoint import Checkpoint, last_good
from instructblip.training.datamodule import StepData
from instructblip.training.ledger import Ledger
from instructblip.training.module import TrainingModule


class Resuming(Callback):
    """Before the first step: weights, optimizer, position and ledger of the checkpoint that the first process chose.

    One process chooses and the others follow, so that a disk which they see differently cannot part them.
    """

    def __init__(self, run: Path, steps: StepData, ledger: Ledger) -> None:
        self.run, self.steps, self.ledger = run, steps, ledger

    def setup(self, trainer: Trainer, pl_module: TrainingModule, stage: str) -> None:  # type: ignore[override]
        """Raises ValueError on all processes when the run has checkpoints and none of them is good."""
        chosen, error = self._choice() if trainer.is_global_zero else (None, None)
        folder, error = trainer.strategy.broadcast((chosen, error))
        if error:
            raise ValueError(error)
        if folder is None:
            return
        found = Checkpoint(folder)
        found.load_weights(pl_module.model)
        pl_module.optimizer_state = found.load_optimizer()
        pl_module.done, pl_module.skipped = found.step, found.record.skipped
        self.steps.first = found.step
        self.ledger.carry(found.ledger)

    def _choice(self) -> tuple[Path | None, str | None]:
        try:
            found = last_good(self.run)
        except ValueError as error:
            return None, str(error)
        return found.folder if found else None, None
