"""The run directory: one per run, enough to run again, refused to a second writer.

config.yaml  versions.json  start.json  metrics.csv  ledger.json  checkpoints/  eval/  finished.json
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from instructblip.choices import Objective, Purpose, Resume
from instructblip.config.training import TrainConfig
from instructblip.files import lock, read_json, replacing, write_json
from instructblip.models.instructblip import build
from instructblip.models.loaded import Loaded
from instructblip.models.paths import backbone_in_init
from instructblip.models.released import load_released
from instructblip.models.tokenizers import tokenizers
from instructblip.revision import revision
from instructblip.training.changes import changes, refused
from instructblip.training.checkpoint import WEIGHTS, best_checkpoint, checkpoints, last_checkpoint
from instructblip.training.ranks import rank

LIBRARIES = ("torch", "lightning", "transformers", "tokenizers", "datasets", "hydra-core", "numpy", "pillow")


@contextmanager
def opened(config: TrainConfig) -> Iterator[Path]:
    """The run's folder, locked while it is written. Raises ValueError when it may not be written."""
    folder = Path(config.paths.runs) / config.name
    with lock(folder / ".lock", f"run {folder}") if rank() == 0 else nullcontext():
        if rank() == 0:
            _check(folder, config)
        yield folder


def is_finished(config: TrainConfig) -> bool:
    """Whether the run has all the steps that are asked for; one of fewer goes on with allow_change=[steps]."""
    path = Path(config.paths.runs) / config.name / "finished.json"
    return path.is_file() and bool(read_json(path)["steps"] >= config.steps)


def read_config(folder: Path) -> TrainConfig:
    """The resolved config of a run."""
    merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(folder / "config.yaml"))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, TrainConfig)
    return config


def load_model(folder: Path, device: str) -> Loaded:
    """The model with the weights of its best checkpoint, of its last one where none was scored, or as published.

    Raises ValueError naming a run that has none.
    """
    config = read_config(folder)
    if config.objective is Objective.stage1:
        raise ValueError(f"{folder} is of BLIP-2's first stage, which has no language model to ask; train the second")
    if config.purpose is Purpose.evaluate:
        return load_released(config.model, device)
    checkpoint = best_checkpoint(folder) or last_checkpoint(folder)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it first")
    if not backbone_in_init(config.model):
        config.model.init = str(checkpoint.folder / WEIGHTS)  # holds everything that init gave
    model = build(config.model, config.seed)
    checkpoint.load_weights(model)
    return Loaded(config.model, model.to(device).eval(), tokenizers(config.model), checkpoint.hash)


def begin(folder: Path, config: TrainConfig, facts: dict[str, Any]) -> None:
    """Describes the run once everything it needs was found: config, versions, and what it is trained on.

    Raises ValueError when a run goes on over other data than it began with.
    """
    path = folder / "start.json"
    before = read_json(path) if path.is_file() else facts
    if changed := [name for name in facts if facts[name] != before[name]]:
        raise ValueError(
            f"{folder} was begun over other data, {', '.join(changed)} differ from its start.json: prepare the same "
            f"tables again, or begin another run with name=..."
        )
    write_json(path, facts)
    if (folder / "config.yaml").is_file() and (differing := changes(read_config(folder), config)):
        with (folder / "changes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(differing) + "\n")
    with replacing(folder / "config.yaml") as temporary:
        OmegaConf.save(OmegaConf.structured(config), temporary)
    versions = {name: version(name) for name in LIBRARIES}
    write_json(folder / "versions.json", {"code": revision(), "python": platform.python_version(), **versions})


def _check(folder: Path, config: TrainConfig) -> None:
    if not (folder / "config.yaml").is_file():
        if checkpoints(folder):
            raise ValueError(f"{folder} has checkpoints, but lost its config.yaml: put it back, or choose name=...")
        return
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"  # the same command once more
    if config.resume is not Resume.auto and not requeued:
        raise ValueError(f"{folder} holds an unfinished run: resume=auto goes on with it, name=... begins another")
    changed = changes(read_config(folder), config)
    if over := refused(changed, config.allow_change):
        lines = "\n  ".join(f"{key}: {old!r} is now {new!r}" for key, (old, new) in over.items())
        raise ValueError(
            f"{folder} was begun with another config; go on with the old one, choose name=..., or allow what you mean "
            f"to change, allow_change=[{','.join(over)}]\n  {lines}"
        )
