"""A run's own checkpoints: trainable weights, optimizer, position, lineage, ledger, config, and what base they fit.

A checkpoint is a folder that takes its name last, after everything in it is on disk and the hashes of its files are
written; nothing half-written is ever read, and what was damaged later is noticed. The position in the stream and in the
schedule is the number of finished steps, and no random state is needed: dropout is keyed by (seed, step, micro-batch,
rank), everything else that is random by its place in the stream.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from instructblip import recipes
from instructblip.config.model import ModelConfig
from instructblip.data.lineage import Seen, merge, published
from instructblip.files import read_json, remove_leftovers, sha256, sync, write_json
from instructblip.models.checkpoint import Trained, base_fingerprint, load_trainable
from instructblip.models.paths import init_paths, start_paths
from instructblip.models.weights import BASE
from instructblip.training.disk import unwritable
from instructblip.training.state import TrainState

Facts = dict[str, Any]  # JSON
WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
MANIFEST = "manifest.json"  # sha256 of each of them
FOLDERS = "step-[0-9]*[0-9]"


@dataclass(frozen=True)
class Record:
    """What a checkpoint says beside its tensors."""

    step: int
    base: str  # fingerprint of the frozen base that the weights belong to
    lineage: list[Seen] = field(default_factory=list)
    ledger: Facts | None = None
    selection: float | None = None  # the higher the better; None where nothing was validated
    skipped: int = 0  # steps without an update, for a loss or gradient that was no number
    learning_rate: float | None = None  # of the last step, to read; the schedule is a function of the step
    config: Facts = field(default_factory=dict)
    config_hash: str = ""  # of what of it a run may not change


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint folder."""

    folder: Path

    @property
    def record(self) -> Record:
        facts = read_json(self.folder / STATE)
        record = Record(**facts)
        return replace(record, lineage=[Seen(**row) for row in facts["lineage"]])

    @property
    def step(self) -> int:
        return self.record.step

    @property
    def hash(self) -> str:
        return str(read_json(self.folder / MANIFEST)[WEIGHTS])

    @property
    def lineage(self) -> list[Seen]:
        return self.record.lineage

    @property
    def ledger(self) -> Facts:
        """Raises ValueError naming a checkpoint without one."""
        if not (facts := self.record.ledger):
            raise ValueError(f"{self.folder} has no ledger of what it was trained on, so its run cannot go on")
        return dict(facts)

    def load_weights(self, model: Trained) -> None:
        """Raises ValueError when the files were altered, or belong to another frozen base (naming both)."""
        self._check(WEIGHTS)
        own, base = self.record.base, base_fingerprint(model)
        if own != base:
            raise ValueError(f"{self.folder} was trained on the frozen base {own}, this model has the base {base}")
        load_trainable(model, load_file(self.folder / WEIGHTS))

    def load_optimizer(self) -> dict[str, Tensor]:
        """For `state.restore_optimizer`. Raises ValueError when the file was altered."""
        self._check(OPTIMIZER)
        return load_file(self.folder / OPTIMIZER)

    def fault(self) -> str | None:
        """What is wrong with its files, or None."""
        try:
            hashes = read_json(self.folder / MANIFEST)
            for name in (WEIGHTS, OPTIMIZER, STATE):
                if sha256(self.folder / name) != hashes[name]:
                    return f"{name} is not the file that was saved"
        except KeyError as error:
            return f"{MANIFEST} does not name {error.args[0]}"
        except (ValueError, TypeError) as error:
            return str(error)
        return None

    def _check(self, name: str) -> None:
        if sha256(self.folder / name) != read_json(self.folder / MANIFEST)[name]:
            raise ValueError(
                f"{self.folder / name} is not the file that was saved; training goes on from the checkpoint before it"
            )


def save(run: Path, record: Record, state: TrainState, keep: int) -> None:
    """Writes `checkpoints/step-<n>` whole or not at all, then removes all but the last `keep` and the best.

    Raises Unwritable naming the folder and the bytes that are free there.
    """
    final = run / "checkpoints" / f"step-{record.step:08d}"
    temporary = final.with_name(f".{final.name}.tmp")
    with _naming_the_disk(final, temporary):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(final.parent)
        temporary.mkdir()
        save_file(state.weights, temporary / WEIGHTS, metadata={BASE: record.base})
        save_file(state.optimizer, temporary / OPTIMIZER)
        for name in (WEIGHTS, OPTIMIZER):
            sync(temporary / name)
        write_json(temporary / STATE, asdict(record))
        write_json(temporary / MANIFEST, {name: sha256(temporary / name) for name in (WEIGHTS, OPTIMIZER, STATE)})
        if final.exists():
            _remove(final)
        os.replace(temporary, final)
        sync(final.parent)
    best = best_checkpoint(run)
    for old in checkpoints(run)[:-keep]:
        if old != best:
            _remove(old.folder)


def checkpoints(run: Path) -> list[Checkpoint]:
    """Finished checkpoints, oldest first."""
    return [Checkpoint(path.parent) for path in sorted((run / "checkpoints").glob(f"{FOLDERS}/{MANIFEST}"))]


def last_checkpoint(run: Path) -> Checkpoint | None:
    return next(reversed(checkpoints(run)), None)


def best_checkpoint(run: Path) -> Checkpoint | None:
    """The one with the highest selection score, of equal ones the first; None when none was scored."""
    scored = {found: found.record.selection for found in checkpoints(run)}
    known = {found: score for found, score in scored.items() if score is not None and not math.isnan(score)}
    return max(known, key=lambda found: known[found], default=None)


def last_good(run: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are those that were saved; damaged ones are renamed and named on stderr.

    For the process that holds the run's lock. Raises ValueError when there are only damaged ones, so that a run never
    begins again by accident.
    """
    folder = run / "checkpoints"
    remove_leftovers(folder)
    damaged: list[str] = []
    for path in sorted(folder.glob(FOLDERS), reverse=True):
        found = Checkpoint(path)
        if (fault := found.fault()) is None:
            if damaged:
                print(f"{'; '.join(damaged)}; going on from step {found.step}", file=sys.stderr, flush=True)
            return found
        kept = _corrupt_name(path)
        os.replace(path, kept)
        damaged.append(f"{path} is damaged ({fault}), kept as {kept.name}")
    if damaged or (damaged := [str(path) for path in sorted(folder.glob("*.corrupt"))]):
        raise ValueError(
            f"no checkpoint of {run} can be read: {'; '.join(damaged)}. Put a copy of one back under its name, or "
            f"delete {folder} to begin again from step 0"
        )
    return None


def inherited(model: ModelConfig) -> dict[str, list[Seen]]:
    """The lineage of each file a run starts from: what stands beside a run's checkpoint, or as declared in `seen`.

    Published weights are known by the name or the path they have in `starts`; any other file of others has none.
    """
    declared = {path: names for start, names in model.seen.items() for path in start_paths(model, start)}
    return {path: _lineage_of(Path(path), declared.get(path, [])) for path in init_paths(model)}


def _lineage_of(path: Path, declared: Sequence[str]) -> list[Seen]:
    if (path.parent / STATE).is_file():
        return merge([], Checkpoint(path.parent).lineage)
    return published([recipes.load(name) for name in declared])


@contextmanager
def _naming_the_disk(final: Path, temporary: Path) -> Iterator[None]:
    """Leaves nothing behind when the disk does not take it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise unwritable(final, error) from error


def _remove(folder: Path) -> None:
    """Under another name first, so that what a kill leaves of it is no checkpoint."""
    going = folder.with_name(f".{folder.name}.old.tmp")
    os.replace(folder, going)
    shutil.rmtree(going)


def _corrupt_name(path: Path) -> Path:
    free = (path.with_name(f"{path.name}{again}.corrupt") for again in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in free if not name.exists())
