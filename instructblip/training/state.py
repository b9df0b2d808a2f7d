"""What a run carries from one process to the next: trainable tensors and the optimizer's moments, by parameter name.

One device, DDP's replicas and FSDP2's shards give the same whole tensors on the cpu, and take them again, whatever
gave them and however many processes there were. All processes call these functions together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instructblip.models.checkpoint import Trained, trainable_state
from instructblip.models.sharding import placed, whole


@dataclass(frozen=True)
class TrainState:
    """Whole tensors on the cpu, ready for safetensors; those of one device share its memory."""

    weights: dict[str, Tensor]  # by parameter name
    optimizer: dict[str, Tensor]  # `exp_avg.<parameter name>`, `exp_avg_sq.<...>`, `step.<...>`


def gather(model: Trained, optimizer: torch.optim.Optimizer) -> TrainState:
    """What a checkpoint holds of the model and its optimizer, which may be sharded."""
    return TrainState(trainable_state(model), optimizer_state(model, optimizer))


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors, `<key>.<parameter name>`; none of a parameter that was never updated."""
    return {
        f"{key}.{name}": whole(value).contiguous()
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key, value in sorted(optimizer.state[parameter].items())
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Puts gathered tensors where the parameters of this process are.

    Raises:
        ValueError: naming tensors of parameters that the optimizer does not have, or that have another shape.
    """
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}
    keyed = {key: tuple(key.split(".", 1)) for key in state}
    if unknown := sorted(key for key, (_, name) in keyed.items() if name not in parameters):
        raise ValueError(f"the optimizer state has {len(unknown)} tensors of nothing that learns: {unknown[:5]}")
    for key, (kind, name) in keyed.items():
        entry: dict[str, Any] = optimizer.state[parameters[name]]
        try:
            entry[kind] = _like(state[key], parameters[name])
        except ValueError as error:
            raise ValueError(f"the optimizer state of {name} does not fit: {error}") from error


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A moment lies where its parameter does; the count of steps is one number, on the same device."""
    return tensor.to(parameter.device, copy=True) if tensor.dim() == 0 else placed(tensor.clone(), parameter)
