"""AdamW's parameter groups and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from instructblip.choices import Schedule
from instructblip.config.training import OptimConfig


def optimizer(parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> torch.optim.AdamW:
    """Decay on matrices and embeddings, queries included; none on vectors and biases (LAVIS get_optimizer_params).

    A group has `lr_scale` times the rate of the step. Raises ValueError when the config scales that of no layer.
    """
    kinds: dict[Kind, list[nn.Parameter]] = defaultdict(list)
    layers = set()
    for name, parameter in parameters:
        if parameter.requires_grad:
            layers.add(layer := name.split(".")[-2:][0])
            kinds[_kind(name, parameter, config.lr_scale.get(layer, 1.0))].append(parameter)
    if unknown := sorted(set(config.lr_scale) - layers):
        raise ValueError(f"optim.lr_scale names {unknown}, and nothing that learns is called so: {sorted(layers)}")
    groups = [
        {"params": found, "weight_decay": config.weight_decay * kind.decays, "lr_scale": kind.scale}
        for kind, found in kinds.items()
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), fused=True)


class Kind(NamedTuple):
    """Of parameters: the fused kernel takes whole tensors or those spread over processes, not both at once."""

    spread: bool
    decays: bool
    scale: float


def _kind(name: str, parameter: nn.Parameter, scale: float) -> Kind:
    return Kind(isinstance(parameter, DTensor), not (parameter.ndim < 2 or name.endswith(".bias")), scale)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sums the gradients of what every process has whole, as FSDP2 does those of its shards. Called by all together."""
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p, DTensor)]
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        own = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in own])
        torch.distributed.all_reduce(flat)
        for gradient, summed in zip(own, flat.split([gradient.numel() for gradient in own]), strict=True):
            gradient.copy_(summed.view_as(gradient))


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor:
    """The norm of all gradients together, of the whole ones where they are spread; beyond `limit` they are scaled down.

    As `torch.nn.utils.clip_grad_norm_`, which does not take whole and spread tensors in one norm. Called by all
    processes together.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    shards = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
    own = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    square = _square(own)
    if shards:
        summed = _square(shards)
        torch.distributed.all_reduce(summed)
        square = square + summed
    norm = square.sqrt()
    if limit is not None:
        torch._foreach_mul_([*own, *shards], (limit / (norm + 1e-6)).clamp(max=1))
    return norm


def _square(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).square().sum()


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear from `warmup_lr` to `lr` over `warmup_steps`, then what `config.schedule` names."""
    return SCHEDULES[config.schedule](step, steps, config)


def cosine(step: int, steps: int, config: OptimConfig) -> float:
    """To `min_lr` at the last step (paper, section 2.6)."""
    if step < config.warmup_steps:
        return _warming(step, config)
    return _between(config, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))


def lavis(step: int, steps: int, config: OptimConfig) -> float:
    """Warm-up in the first inner epoch alone; then one rate an inner epoch, on a cosine that never ends (PAPER C.2).

    Raises ValueError for a run that is no whole number of inner epochs, or warms up for longer than one.
    """
    if steps % config.inner_epoch or config.warmup_steps > config.inner_epoch:
        raise ValueError(
            f"optim.schedule=lavis with steps={steps} and warmup_steps={config.warmup_steps}: steps must be a multiple "
            f"of optim.inner_epoch={config.inner_epoch}, and the warm-up within one"
        )
    epoch = step // config.inner_epoch
    if epoch == 0:
        return _warming(step, config) if step < config.warmup_steps else config.lr
    return _between(config, epoch * config.inner_epoch / steps)


SCHEDULES = {Schedule.cosine: cosine, Schedule.lavis: lavis}


def _warming(step: int, config: OptimConfig) -> float:
    return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps


def _between(config: OptimConfig, progress: float) -> float:
    """From `lr` at 0 to `min_lr` at 1."""
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress))
