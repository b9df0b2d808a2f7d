"""A model without weights: the real classes on the `meta` device, to count what a full-size run would hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from instructblip.config.model import LLMConfig, ModelConfig
from instructblip.files import read_json
from instructblip.models.instructblip import InstructBlip, build

WIDTHS = ("hidden_size", "d_model")  # one of them stands in a config that gives the sizes of its model
NOT_SIZES = ("dtype", "torch_dtype", "model_type", "architectures", "transformers_version", "quantization_config")


def skeleton(config: ModelConfig) -> InstructBlip:
    """The model of `config` with empty tensors, in well under a second and without memory at any size.

    Raises:
        ValueError: the sizes of the language model stand in its folder alone, and that is not there.
    """
    bare = replace(
        config,
        init=None,
        random_init=True,
        vision=replace(config.vision, weights=None),
        llm=replace(config.llm, weights=None, config=_sizes(config.llm)),
    )
    with torch.device("meta"):
        return build(bare, seed=0)


def _sizes(config: LLMConfig) -> dict[str, object]:
    """The language model's config as it will be built: its folder's, with ours laid over it."""
    path = Path(config.weights or "") / "config.json"
    if config.weights is not None and path.is_file():
        theirs = {name: value for name, value in read_json(path).items() if name not in NOT_SIZES}
        return theirs | config.config
    if config.weights is not None and not any(name in config.config for name in WIDTHS):
        raise ValueError(f"the sizes of the language model stand in {path}, which is not there")
    return config.config
