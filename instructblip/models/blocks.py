"""The layers of the backbones, one by one: what is computed again in backward, compiled, or spread over processes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer layers of the backbones in `model`, in the order they are defined in; none of the Q-Former."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recompute(llm: nn.Module) -> None:
    """Keeps each layer's input alone for backward, and computes the layer again there (activation checkpointing).

    Not `gradient_checkpointing_enable` of `transformers`: that does nothing in eval mode, which frozen layers are in.
    """
    for block in blocks(llm):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def hold_frozen(llm: nn.Module, dtype: torch.dtype) -> None:
    """Keeps the frozen weights in the dtype they are computed in, since autocast would make a second copy of every one
    of them for backward: 13 GB of a 7B model stored in fp16."""
    for parameter in llm.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def compile_blocks(model: nn.Module) -> None:
    """`torch.compile` of each layer of the backbones: one graph serves all layers, and names stay as they are."""
    for block in blocks(model):
        block.compile(dynamic=True)  # the length of the text changes with every batch


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spreads the layers of the backbones over the processes of a mesh, each layer a group of its own (FSDP2).

    Everything else stays whole on every process; gradients of what is spread are summed over the processes.
    """
    for block in blocks(model):
        _summing(fully_shard(block, mesh=mesh))
    spread = {id(parameter) for block in blocks(model) for parameter in block.parameters()}
    others = {parameter for parameter in model.parameters() if id(parameter) not in spread}
    fully_shard(model, mesh=mesh, ignored_params=others)  # one root, so that a layer is fetched while another computes


def _summing(module: Any) -> None:
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
