"""AdamW's parameter groups and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

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
    """Linear from `warmup_lr` to `lr` over `warmup_steps`, then a cosine to `min_lr` (paper, section 2.6)."""
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress))
