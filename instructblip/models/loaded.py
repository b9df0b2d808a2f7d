"""A model ready to be asked, wherever its weights came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from instructblip.config.model import ModelConfig
from instructblip.models.checkpoint import base_fingerprint, trainable_state
from instructblip.models.instructblip import InstructBlip
from instructblip.models.tokenizers import Tokenizers


@dataclass(frozen=True)
class Loaded:
    """A model with what turns texts into its ids and back."""

    config: ModelConfig
    model: InstructBlip
    tokenizers: Tokenizers
    checkpoint: str  # hash of the weights that are not of a frozen backbone


def weights_hash(model: InstructBlip) -> str:
    """What tells a checkpoint that is no file of ours from others: every trained tensor, and the frozen base."""
    digest = hashlib.sha256(base_fingerprint(model).encode())
    for name, tensor in sorted(trainable_state(model).items()):
        digest.update(name.encode() + tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
