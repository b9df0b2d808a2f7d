"""What of a model is saved with a run, and whose frozen base it belongs to."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from instructblip.models.instructblip import InstructBlip
from instructblip.models.lora import base_name, is_adapter

SAMPLED = 256  # values hashed of each frozen tensor: enough to tell two releases of an LLM apart


def trainable_state(model: InstructBlip) -> dict[str, Tensor]:
    """Every tensor outside the frozen backbones, the last text feed-forward included, and the adapters in them."""
    frozen = tuple(f"{part}." for part in model.frozen)
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(frozen or "\0") or is_adapter(name)
    }


def load_trainable(model: InstructBlip, state: dict[str, Tensor]) -> None:
    """Raises ValueError with the names of tensors that are missing, not expected, or of another shape."""
    own = trainable_state(model)
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    other = [
        f"{name} {tuple(state[name].shape)}" for name in own if name in state and own[name].shape != state[name].shape
    ]
    if missing or unexpected or other:
        raise ValueError(f"checkpoint does not fit: missing {missing}, unexpected {unexpected}, other shape {other}")
    model.load_state_dict(state, strict=False)


@torch.no_grad()
def base_fingerprint(model: InstructBlip) -> str:
    """Twelve digits over names, shapes and evenly sampled values of the frozen backbones, in float32.

    Adapters do not count: a run with them stands on the same base as one without.
    """
    digest = hashlib.sha256()
    state = {base_name(name): tensor for name, tensor in model.state_dict().items() if not is_adapter(name)}
    for name, tensor in sorted(state.items()):
        if name.startswith(tuple(f"{part}." for part in model.frozen)):
            flat = tensor.flatten()
            sampled = flat[:: max(1, flat.numel() // SAMPLED)].float().cpu()
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + sampled.numpy().tobytes())
    return digest.hexdigest()[:12]
