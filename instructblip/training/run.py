"""The run directory: one per run, enough to run again, refused to a second writer.

config.yaml  versions.json  start.json  metrics.csv  ledger.json  checkpoints/  eval/  finished.json
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from instructblip.choices import Resume
from instructblip.config.training import TrainConfig
from instructblip.files import lock, read_json, replacing, write_json
from instructblip.models.instructblip import build
from instructblip.models.loaded import Loaded
from instructblip.models.paths import backbone_in_init
from instructblip.models.tokenizers import tokenizers
from instructblip.recipes import plain
from instructblip.revision import revision
from instructblip.training.checkpoint import WEIGHTS, last_checkpoint

LIBRARIES = ("torch", "lightning", "transformers", "tokenizers", "datasets", "hydra-core", "numpy", "pillow")
MAY_CHANGE = ("paths", "trainer", "logger", "resume", "dry_run", "name")  # between a run and its continuation


def rank() -> int:
    """This process among those torchrun or srun started; 0 when alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


@contextmanager
def opened(config: TrainConfig) -> Iterator[Path]:
    """The run's folder, locked while it is written. Raises ValueError when it may not be written."""
    folder = Path(config.paths.runs) / config.name
    with lock(folder / ".lock", f"run {folder}") if rank() == 0 else nullcontext():
        if rank() == 0:
            _check(folder, config)
        yield folder


def is_finished(config: TrainConfig) -> bool:
    return (Path(config.paths.runs) / config.name / "finished.json").is_file()


def read_config(folder: Path) -> TrainConfig:
    """The resolved config of a run."""
    merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(folder / "config.yaml"))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, TrainConfig)
    return config


def load_model(folder: Path, device: str) -> Loaded:
    """The model with the weights of its last checkpoint. Raises ValueError naming a run that has none."""
    config = read_config(folder)
    checkpoint = last_checkpoint(folder)
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
    with replacing(folder / "config.yaml") as temporary:
        OmegaConf.save(OmegaConf.structured(config), temporary)
    versions = {name: version(name) for name in LIBRARIES}
    write_json(folder / "versions.json", {"code": revision(), "python": platform.python_version(), **versions})


def _check(folder: Path, config: TrainConfig) -> None:
    if not (folder / "config.yaml").is_file():
        return
    if config.resume is not Resume.auto:
        raise ValueError(f"{folder} holds an unfinished run: resume=auto goes on with it, name=... begins another")
    old, new = _meaning(read_config(folder)), _meaning(config)
    if changed := sorted(key for key in new if old[key] != new[key]):
        lines = "\n  ".join(f"{key}: {old[key]!r} is now {new[key]!r}" for key in changed)
        raise ValueError(
            f"{folder} was begun with another config; go on with the old one or choose name=...\n  {lines}"
        )


def _meaning(config: TrainConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else key)
        else:
            flat[path] = value

    walk({key: plain(value) for key, value in vars(config).items() if key not in MAY_CHANGE}, "")
    return flat
