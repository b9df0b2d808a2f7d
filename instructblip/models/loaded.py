"""A model ready to be asked, wherever its weights came from."""

from __future__ import annotations

from dataclasses import dataclass

from instructblip.config.model import ModelConfig
from instructblip.models.instructblip import InstructBlip
from instructblip.models.tokenizers import Tokenizers


@dataclass(frozen=True)
class Loaded:
    """A model with what turns texts into its ids and back."""

    config: ModelConfig
    model: InstructBlip
    tokenizers: Tokenizers
    checkpoint: str  # hash of the weights that are not of a frozen backbone
