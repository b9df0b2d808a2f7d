"""The run directory of a published model: nothing is trained, `evaluate.py run=released/<name>` scores it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from instructblip.choices import Purpose
from instructblip.config.training import TrainConfig
from instructblip.data.lineage import Seen, merge
from instructblip.models.paths import absent_paths
from instructblip.recipes import plain
from instructblip.training.checkpoint import inherited, last_checkpoint
from instructblip.training.run import begin, read_config

FOLDER = "released"  # under paths.runs


def place(config: TrainConfig) -> str:
    """Writes `paths.runs/released/<name>` (not with dry_run) and returns what to do with it.

    Raises ValueError naming weights that are not there, or a folder of that name for another model.
    """
    folder = Path(config.paths.runs) / FOLDER / config.name
    if absent := absent_paths(config.model):
        raise ValueError(f"weights not found: {', '.join(absent)}; they are published, as the experiment's header says")
    if (folder / "config.yaml").is_file() and plain(read_config(folder).model) != plain(config.model):
        raise ValueError(f"{folder} was written for another model; choose another name with name=...")
    if not config.dry_run:
        begin(folder, config, {"lineage": [asdict(seen) for seen in _declared(config)]})
    return f"nothing to train: python evaluate.py run={FOLDER}/{config.name} recipe=held_out scores the published model"


def lineage(folder: Path) -> list[Seen]:
    """What the weights of a run have seen: as its checkpoint says, or as declared for a published model.

    Raises ValueError naming a run that has no checkpoint.
    """
    config = read_config(folder)
    if config.purpose is Purpose.evaluate:
        return _declared(config)
    if (checkpoint := last_checkpoint(folder)) is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it first")
    return checkpoint.lineage


def _declared(config: TrainConfig) -> list[Seen]:
    """Of the files it is read from; nothing of BLIP-2's."""
    return merge([], [seen for lineage in inherited(config.model).values() for seen in lineage])
