"""The loss of a global step, exact however its samples are split into ranks and micro-batches.

Every target token carries its weight; the weights need the target counts of whole groups, which are summed over ranks
before the first backward. The loss is then a plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from instructblip.choices import Reduction
from instructblip.data.collate import Batch

Sum = Callable[[Tensor], Tensor]  # over ranks


def weigh(batches: Sequence[Batch], groups: int, reduction: Reduction, all_reduce: Sum) -> list[Batch]:
    """The micro-batches with final weights, which sum to 1 over the step. Raises ValueError for a step without targets.

    `group`: each group's token mean counts the same (LAVIS' public runner under DDP, where a rank's batch is one
    dataset; the paper's own script is unreleased). `token`: each token. `sample`: each sample's token mean.
    """
    tokens = torch.stack([_per_group(batch, groups) for batch in batches]).sum(0)  # (G,)
    samples = torch.stack([_rows(batch).sum() for batch in batches]).sum()
    counts = all_reduce(torch.cat([tokens, samples[None]]))  # (G + 1,)
    tokens, samples = counts[:-1], counts[-1]
    if tokens.sum() == 0:
        raise ValueError("a step without any target token: every response was cut away or every picture was unreadable")
    return [replace(batch, loss_weight=_weight(batch, tokens, samples, reduction)) for batch in batches]


def _weight(batch: Batch, tokens: Tensor, samples: Tensor, reduction: Reduction) -> Tensor:
    """(B, T)"""
    assert batch.loss_weight is not None
    if reduction is Reduction.token:
        return batch.loss_weight / tokens.sum()
    if reduction is Reduction.sample:
        return batch.loss_weight / batch.loss_weight.sum(1, keepdim=True).clamp(min=1) / samples
    per_row = (tokens > 0).sum() * tokens[batch.group].clamp(min=1)  # (B,)
    return batch.loss_weight / per_row[:, None]


def _per_group(batch: Batch, groups: int) -> Tensor:
    """(G,) target tokens of each group."""
    assert batch.loss_weight is not None
    return batch.loss_weight.new_zeros(groups).index_add(0, batch.group, batch.loss_weight.sum(1))


def _rows(batch: Batch) -> Tensor:
    """(B,) 1 for a row with targets."""
    assert batch.loss_weight is not None
    return (batch.loss_weight.sum(1) > 0).to(batch.loss_weight.dtype)
