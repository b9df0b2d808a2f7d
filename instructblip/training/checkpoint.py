"""A run's own checkpoints: trainable weights, optimizer, step, lineage, ledger, and whose frozen base they fit.

A checkpoint is a folder that takes its name last, after everything in it is on disk; nothing half-written is ever read.
The resume state of the data is the number of finished steps, and no random state is needed: dropout is keyed by step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from instructblip.data.lineage import Seen, merge
from instructblip.files import read_json, remove_leftovers, sha256, sync, write_json
from instructblip.models.checkpoint import base_fingerprint, load_trainable
from instructblip.models.instructblip import InstructBlip
from instructblip.models.weights import BASE
from instructblip.training.state import TrainState

Facts = dict[str, Any]  # JSON
WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint folder."""

    folder: Path

    @property
    def step(self) -> int:
        return int(self._state["step"])

    @property
    def hash(self) -> str:
        return str(self._state["sha256"][WEIGHTS])

    @property
    def lineage(self) -> list[Seen]:
        return [Seen(**row) for row in self._state["lineage"]]

    @property
    def ledger(self) -> Facts:
        """Raises ValueError naming a checkpoint from before ledgers were kept."""
        if not (facts := self._state.get("ledger")):
            raise ValueError(f"{self.folder} has no ledger of what it was trained on, so its run cannot go on")
        return dict(facts)

    def load_weights(self, model: InstructBlip) -> None:
        """Raises ValueError when the files were altered, or belong to another frozen base (naming both)."""
        self._check(WEIGHTS)
        own, base = self._state["base"], base_fingerprint(model)
        if own != base:
            raise ValueError(f"{self.folder} was trained on the frozen base {own}, this model has the base {base}")
        load_trainable(model, load_file(self.folder / WEIGHTS))

    def load_optimizer(self) -> dict[str, Tensor]:
        """For `state.restore_optimizer`. Raises ValueError when the file was altered."""
        self._check(OPTIMIZER)
        return load_file(self.folder / OPTIMIZER)

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = read_json(self.folder / STATE)
        return state

    def _check(self, name: str) -> None:
        if sha256(self.folder / name) != self._state["sha256"][name]:
            raise ValueError(
                f"{self.folder / name} is not the file that was saved; delete the folder to use the one before"
            )


def save(
    run: Path,
    step: int,
    state: TrainState,
    base: str,
    lineage: Sequence[Seen],
    keep: int,
    ledger: Facts | None = None,
) -> None:
    """Writes `checkpoints/step-<n>` whole or not at all, then removes all but the last `keep`.

    `base` is the fingerprint of the frozen base that the weights belong to.
    """
    final = run / "checkpoints" / f"step-{step:08d}"
    temporary = final.with_name(f".{final.name}.tmp")
    remove_leftovers(final.parent)
    temporary.mkdir(parents=True)
    save_file(state.weights, temporary / WEIGHTS, metadata={BASE: base})
    save_file(state.optimizer, temporary / OPTIMIZER)
    for name in (WEIGHTS, OPTIMIZER):
        sync(temporary / name)
    facts = {
        "step": step,
        "base": base,
        "lineage": [asdict(seen) for seen in lineage],
        "ledger": ledger,
        "sha256": {name: sha256(temporary / name) for name in (WEIGHTS, OPTIMIZER)},
    }
    write_json(temporary / STATE, facts)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    sync(final.parent)
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old.folder)


def checkpoints(run: Path) -> list[Checkpoint]:
    """Finished checkpoints, oldest first."""
    return [Checkpoint(path.parent) for path in sorted((run / "checkpoints").glob(f"step-*/{STATE}"))]


def last_checkpoint(run: Path) -> Checkpoint | None:
    return next(reversed(checkpoints(run)), None)


def inherited(init: list[str]) -> list[Seen]:
    """The lineage of the weights a run starts from: what stands beside those that are a run's checkpoint."""
    begun = [Checkpoint(Path(path).parent) for path in init if (Path(path).parent / STATE).is_file()]
    return merge([], [seen for checkpoint in begun for seen in checkpoint.lineage])
