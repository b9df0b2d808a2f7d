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
    return Instruct(model, [f"loss/{name}" for name in recipes], config.batch_size // size, config.loss.reduction)


@dataclass(frozen=True)
class Instruct:
    """The likelihood of the response, weighed by `training/loss.py`; reported is each recipe's mean over tokens."""

    model: InstructBlip
    names: Sequence[str]
    groups: int
    reduction: Reduction

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        return weigh(batches, self.groups, self.reduction, all_reduce)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        assert batch.loss_weight is not None
        nll = token_nll(self.model, batch)  # (B, T)
        counted = (batch.loss_weight > 0).float()
        zeros = torch.zeros(len(self.names), device=nll.device)
        sums = zeros.index_add(0, batch.recipe, (nll.detach() * counted).sum(1))
        return (nll * batch.loss_weight).sum(), torch.cat([sums, zeros.index_add(0, batch.recipe, counted.sum(1))])


def token_nll(model: InstructBlip, batch: Batch) -> Tensor:
    """(B, T) negative log-likelihood of every target token."""
    assert batch.labels is not None
    nll: Tensor = model(**batch.inputs(), labels=batch.labels)
    return nll
