"""What a step is trained for. An objective gives each micro-batch its share of the step's loss; the shares add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from instructblip.choices import Objective as Goal
from instructblip.choices import Reduction
from instructblip.config.training import TrainConfig
from instructblip.data import keyed
from instructblip.data.collate import Batch
from instructblip.models.checkpoint import Trained
from instructblip.models.instructblip import InstructBlip
from instructblip.models.stage1 import Stage1
from instructblip.training.loss import Sum, weigh

TokenNll = Callable[[InstructBlip, Batch], Tensor]  # -> (B, T)


class Objective(Protocol):
    """`names` are the R figures reported beside the loss, as columns of the metrics file."""

    @property
    def names(self) -> Sequence[str]: ...

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        """This rank's micro-batches of a step, with what their losses need to know of all ranks."""
        ...

    def loss(self, batch: Batch, step: int, all_reduce: Sum) -> tuple[Tensor, Tensor]:
        """The micro-batch's share of the loss, and (2R,): the sum of each figure, then of what it is a mean over."""
        ...


def objective(config: TrainConfig, model: Trained, recipes: Sequence[str]) -> Objective:
    """Raises ValueError when the step cannot be cut into the groups of the loss, or cannot be contrasted as a whole."""
    if isinstance(model, Stage1):
        _check_whole(config)
        return Align(model, config.seed, config.batch_size)
    nll = token_nll
    if config.objective is Goal.language:
        _learn_language_alone(model)
        nll = text_nll
    size = config.loss.group_size or config.group_size
    if config.batch_size % size:
        raise ValueError(f"batch_size={config.batch_size} is not a multiple of loss.group_size={size}")
    return Instruct(model, recipes, config.batch_size // size, config.loss.reduction, nll)


@dataclass(frozen=True)
class Instruct:
    """The likelihood of the response, weighed by `training/loss.py`.

    Reported are each recipe's mean over tokens, `loss/<recipe>`, and its share of the loss, `loss_share/<recipe>`.
    """

    model: InstructBlip
    recipes: Sequence[str]
    groups: int
    reduction: Reduction
    token_nll: TokenNll

    @property
    def names(self) -> list[str]:
        return [f"{figure}/{recipe}" for figure in ("loss", "loss_share") for recipe in self.recipes]

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        return weigh(batches, self.groups, self.reduction, all_reduce)

    def loss(self, batch: Batch, step: int, all_reduce: Sum) -> tuple[Tensor, Tensor]:
        assert batch.loss_weight is not None
        nll = self.token_nll(self.model, batch)  # (B, T)
        loss = (nll * batch.loss_weight).sum()
        counted = (batch.loss_weight > 0).to(nll.dtype)
        rows = torch.stack(
            [(nll * counted).sum(1), (nll * batch.loss_weight).sum(1), counted.sum(1)]
        ).detach()  # (3, B)
        nlls, shares, tokens = rows.new_zeros(3, len(self.recipes)).index_add(1, batch.recipe, rows)
        return loss, torch.cat([nlls, shares, tokens, shares.sum().expand_as(shares)])


@dataclass(frozen=True)
class Align:
    """BLIP-2's first stage: the sum of contrast, matching and generation, each a mean over the whole step.

    Every caption is contrasted with every picture of the step, wherever it is computed. Gradients are exact: a feature
    learns from its part in other ranks' losses too, which LAVIS' `concat_all_gather` cuts off.
    """

    model: Stage1
    seed: int
    batch_size: int

    @property
    def names(self) -> list[str]:
        masked = [] if self.model.masked_patches is None else ["loss/masked"]
        return ["loss/contrast", "loss/matching", "loss/generation", "recall", *masked]

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        assert len(batches) == 1, f"{len(batches)} micro-batches, and a contrast is within one"
        return list(batches)

    def loss(self, batch: Batch, step: int, all_reduce: Sum) -> tuple[Tensor, Tensor]:
        assert batch.loss_weight is not None
        counts = (batch.loss_weight.sum(1) > 0).float()  # (B,), 0 for a filler
        present = all_reduce(counts.new_zeros(self.batch_size).index_add(0, batch.place, counts)) > 0  # (N,)
        rows, tokens = int(present.sum()), all_reduce(batch.loss_weight.sum())
        if rows < 2:
            raise ValueError(f"step {step} has {rows} captions whose picture can be read; a contrast needs 2")
        own = (present.cumsum(0) - 1).clamp(min=0)[batch.place]  # (B,), among the M that are present

        def everyone(values: Tensor) -> Tensor:
            """(B, ...) -> (M, ...), in the order of the step."""
            real = values * counts.to(values.dtype).view(-1, *[1] * (values.dim() - 1))
            summed: Tensor = Summed.apply(values.new_zeros(rows, *values.shape[1:]).index_add(0, own, real), all_reduce)
            return summed

        generator = torch.Generator().manual_seed(keyed.key(self.seed, "negatives", step) % 2**63)
        draws = torch.rand(2, self.batch_size, dtype=torch.float64, generator=generator).to(own.device)[:, present]
        texts = (batch.qformer_input_ids, batch.qformer_attention_mask)
        hidden = self._hidden(generator, batch.place)
        losses = self.model(batch.pixel_values, *texts, batch.image_index, own, everyone, draws, hidden)
        written = (losses.generation * batch.loss_weight).sum()
        contrast, matching, found, masked = (
            (value * counts).sum() for value in (losses.contrast, losses.matching, losses.found, losses.masked)
        )
        sums = [contrast, matching, written, found, masked][: len(self.names)]
        means_over = [counts.sum() if value is not written else batch.loss_weight.sum() for value in sums]
        loss = (contrast + matching + masked) / rows + written / tokens
        return loss, torch.stack([*sums, *means_over]).detach()

    def _hidden(self, generator: torch.Generator, place: Tensor) -> Tensor | None:
        """(B, patches), drawn for every row of the step, whoever computes it."""
        if (masked := self.model.masked_patches) is None:
            return None
        drawn = torch.rand(self.batch_size, masked.patches, generator=generator).to(place.device)
        return (drawn < self.model.config.masked_patches)[place]


class Summed(torch.autograd.Function):
    """A sum over ranks that every rank goes on with: what a rank put in gets the gradients of all."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, all_reduce: Sum) -> Tensor:
        ctx.all_reduce = all_reduce
        return all_reduce(value.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.all_reduce(gradient.clone()), None


def _check_whole(config: TrainConfig) -> None:
    ranks, micro = config.trainer.devices * config.trainer.num_nodes, config.trainer.micro_batch_size
    if config.batch_size > ranks * micro:
        raise ValueError(
            f"the first stage contrasts the {config.batch_size} captions of a step at once, and {ranks} processes of "
            f"micro-batch {micro} hold {ranks * micro}: set trainer.micro_batch_size={-(-config.batch_size // ranks)} "
            f"or use {-(-config.batch_size // micro)} processes"
        )
    if config.per_image > 1:
        raise ValueError(f"per_image={config.per_image}: a picture would be contrasted with itself; set it to 1")


def token_nll(model: InstructBlip, batch: Batch) -> Tensor:
    """(B, T) negative log-likelihood of every target token. Raises ValueError for rows of several turns."""
    assert batch.labels is not None
    if batch.turn is not None:
        raise ValueError(f"{batch.uids[0]} or a row beside it has `following`, which only objective=language reads")
    nll: Tensor = model(**batch.inputs(), labels=batch.labels)
    return nll


def text_nll(model: InstructBlip, batch: Batch) -> Tensor:
    """The same of a language model that is not shown the picture."""
    assert batch.labels is not None
    return model.text_nll(batch.input_ids, batch.attention_mask, batch.labels, batch.turn)


def _learn_language_alone(model: InstructBlip) -> None:
    """Raises ValueError when the language model is frozen."""
    if "llm" in model.frozen:
        raise ValueError("objective=language trains the language model: set model.unfreeze=[llm]")
    model.requires_grad_(False)
    model.llm.requires_grad_(True)
