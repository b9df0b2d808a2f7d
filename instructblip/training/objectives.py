"""What a step is trained for. An objective gives each micro-batch its share of the step's loss; the shares add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from instructblip.choices import Reduction
from instructblip.config.training import TrainConfig
from instructblip.data.collate import Batch
from instructblip.models.instructblip import InstructBlip
from instructblip.training.loss import Sum, weigh


class Objective(Protocol):
    """`names` are the R figures reported beside the loss, as columns of the metrics file."""

    @property
    def names(self) -> Sequence[str]: ...

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        """This rank's micro-batches of a step, with what their losses need to know of all ranks."""
        ...

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The micro-batch's share of the loss, and (2R,): the sum of each figure, then of what it is a mean over."""
        ...


def objective(config: TrainConfig, model: InstructBlip, recipes: Sequence[str]) -> Objective:
    """Raises ValueError when the step cannot be cut into the groups of the loss."""
    size = config.loss.group_size or config.group_size
    if config.batch_size % size:
        raise ValueError(f"batch_size={config.batch_size} is not a multiple of loss.group_size={size}")
    return Instruct(model, recipes, config.batch_size // size, config.loss.reduction)


@dataclass(frozen=True)
class Instruct:
    """The likelihood of the response, weighed by `training/loss.py`.

    Reported are each recipe's mean over tokens, `loss/<recipe>`, and its share of the loss, `loss_share/<recipe>`.
    """

    model: InstructBlip
    recipes: Sequence[str]
    groups: int
    reduction: Reduction

    @property
    def names(self) -> list[str]:
        return [f"{figure}/{recipe}" for figure in ("loss", "loss_share") for recipe in self.recipes]

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        return weigh(batches, self.groups, self.reduction, all_reduce)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        assert batch.loss_weight is not None
        nll = token_nll(self.model, batch)  # (B, T)
        loss = (nll * batch.loss_weight).sum()
        counted = (batch.loss_weight > 0).float()
        rows = torch.stack(
            [(nll * counted).sum(1), (nll * batch.loss_weight).sum(1), counted.sum(1)]
        ).detach()  # (3, B)
        nlls, shares, tokens = rows.new_zeros(3, len(self.recipes)).index_add(1, batch.recipe, rows)
        return loss, torch.cat([nlls, shares, tokens, shares.sum().expand_as(shares)])


def token_nll(model: InstructBlip, batch: Batch) -> Tensor:
    """(B, T) negative log-likelihood of every target token."""
    assert batch.labels is not None
    nll: Tensor = model(**batch.inputs(), labels=batch.labels)
    return nll
