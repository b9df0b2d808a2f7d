"""AdamW's parameter groups and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from instructblip.choices import Schedule
from instructblip.config.training import OptimConfig


def optimizer(parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> torch.optim.AdamW:
    """Decay on matrices and embeddings, queries included; none on vectors and biases (LAVIS get_optimizer_params)."""
    trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    plain = [parameter for name, parameter in trained if parameter.ndim < 2 or name.endswith(".bias")]
    decayed = [parameter for name, parameter in trained if not (parameter.ndim < 2 or name.endswith(".bias"))]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), fused=True)


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
