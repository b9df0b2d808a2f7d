"""The paths a model config names for its weights; importable without torch, for what only looks whether they exist."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from instructblip.config.model import ModelConfig

BACKBONES = {"vision": "vision.encoder.", "llm": "llm.model."}  # part of the config -> prefix of its tensors


def init_paths(config: ModelConfig) -> list[str]:
    """`config.init` as a list, a name in `config.starts` replaced by the paths it stands for."""
    return start_paths(config, config.init)


def start_paths(config: ModelConfig, start: str | Sequence[str] | None) -> list[str]:
    """The same of another start than `config.init`."""
    chosen = config.starts.get(start, start) if isinstance(start, str) else start
    if chosen is None:
        return []
    return [chosen] if isinstance(chosen, str) else [str(path) for path in chosen]


def backbone_in_init(config: ModelConfig) -> bool:
    """Whether a frozen backbone may have its weights from `config.init`, having no path of its own."""
    frozen = [part for part in BACKBONES if part not in config.unfreeze]
    return any(getattr(config, part).weights is None for part in frozen)


def absent_stage1_paths(config: ModelConfig) -> list[str]:
    """The same for BLIP-2's first stage, which has no language model and begins from BERT."""
    if config.random_init and config.init is None:
        return []
    named = {"model.vision.weights": config.vision.weights, "model.qformer.weights": config.qformer.weights}
    if config.init is not None:  # which may hold both
        named = {"model.init": config.init} | {name: path for name, path in named.items() if path is not None}
    return [f"{name}={path}" for name, path in named.items() if path is None or not Path(str(path)).exists()]


def absent_paths(config: ModelConfig) -> list[str]:
    """`setting=path` of weights that are named and not there, or not named although nothing else can give them."""
    if config.random_init and config.init is None:
        return []
    named = [("model.vision.weights", config.vision.weights), ("model.llm.weights", config.llm.weights)]
    inits = init_paths(config)
    wanted = [(name, path) for name, path in named if path is not None or not inits]
    wanted += [("model.init", path) for path in inits] or [("model.init", None)]
    return [f"{name}={path}" for name, path in wanted if path is None or not Path(path).exists()]
