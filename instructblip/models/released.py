"""A published model, which no run of ours trained: a LAVIS file or a Hugging Face folder in `config.init`."""

from __future__ import annotations

import hashlib

import torch

from instructblip.config.model import ModelConfig
from instructblip.models.checkpoint import trainable_state
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.loaded import Loaded
from instructblip.models.tokenizers import tokenizers


def load_released(config: ModelConfig, device: str) -> Loaded:
    """The model ready to be asked, all of its weights from `config`. Raises ValueError naming what is not there."""
    model = build(config, seed=0)  # nothing is drawn: every weight has a file
    return Loaded(config, model.to(device).eval(), tokenizers(config), content_hash(model))


def content_hash(model: InstructBlip) -> str:
    """sha256 over all that is not of a frozen backbone: the same for the same weights in another file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(trainable_state(model).items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.to(torch.float32).numpy().tobytes())
    return digest.hexdigest()
