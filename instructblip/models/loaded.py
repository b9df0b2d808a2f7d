"""A model ready to be asked, wherever its weights came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from instructblip.config.model import ModelConfig
from instructblip.models.instructblip import InstructBlip
from instructblip.models.paths import BACKBONES
from instructblip.models.pretrained import fingerprint
from instructblip.models.tokenizers import Tokenizers


@dataclass(frozen=True)
class Loaded:
    """A model with what turns texts into its ids and back."""

    config: ModelConfig
    model: InstructBlip
    tokenizers: Tokenizers
    checkpoint: str  # hash of the weights that are not of a frozen backbone


def weights_hash(model: InstructBlip) -> str:
    """What tells a checkpoint that is no file of ours from others: all between the backbones, and these sampled."""
    digest = hashlib.sha256(fingerprint(model, BACKBONES).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(tuple(f"{part}." for part in BACKBONES)):
            digest.update(name.encode() + tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
