"""The Lightning module: one optimizer step per batch, where a batch is a list of micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from instructblip.config.training import TrainConfig
from instructblip.data import keyed
from instructblip.data.collate import Batch
from instructblip.data.steps import Step
from instructblip.models.instructblip import InstructBlip
from instructblip.training.loss import weigh
from instructblip.training.optim import learning_rate, optimizer


class TrainingModule(LightningModule):
    """Holds a finished model; steps are counted from the run's beginning, also after a resume.

    Manual optimisation, because the micro-batches of a step share weights that need counts from all ranks.
    """

    def __init__(
        self,
        model: InstructBlip,
        config: TrainConfig,
        recipes: Sequence[str],
        optimizer_state: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.config, self.recipes = model, config, list(recipes)
        self._optimizer_state = optimizer_state
        self.done = 0  # steps finished since the run's beginning
        size = config.loss.group_size or config.group_size
        if config.batch_size % size:
            raise ValueError(f"batch_size={config.batch_size} is not a multiple of loss.group_size={size}")
        self.groups = config.batch_size // size

    def configure_optimizers(self) -> torch.optim.Optimizer:
        made = optimizer(self.model.named_parameters(), self.config.optim)
        if self._optimizer_state:
            made.load_state_dict(self._optimizer_state)
        return made

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        return batch  # micro-batches move one by one

    def training_step(self, step: Step, _: int) -> dict[str, Tensor]:
        """Backward over all micro-batches, one update. Returns the loss in total and per recipe, over all ranks."""
        made = self.optimizers()
        assert isinstance(made, torch.optim.Optimizer)
        batches = weigh([b.to(self.device) for b in step.batches], self.groups, self.config.loss.reduction, self._sum)
        sums = torch.zeros(1 + 2 * len(self.recipes), device=self.device)
        for number, batch in enumerate(batches):
            torch.manual_seed(keyed.key(self.config.seed, "dropout", step.number, number, self.global_rank))
            with self._syncing_last(number == len(batches) - 1):
                nll = token_nll(self.model, batch)  # (B, T)
                loss = weighted_sum(nll, batch)
                self.manual_backward(loss * self.trainer.world_size)  # DDP takes the mean of gradients over ranks
            sums += self._sums(loss, nll, batch)
        sums = self._sum(sums)
        if not torch.isfinite(sums[0]):
            uids = [uid for batch in batches for uid in batch.uids]
            raise FloatingPointError(f"loss {sums[0].item()} at step {step.number}; samples of this rank: {uids}")
        self._update(made, step.number)
        return self._report(sums)

    @torch.no_grad()
    def fixed_loss(self, batches: Sequence[Batch]) -> float:
        """The loss of given micro-batches, dropout off: what the same data cost before and after training."""
        training = self.model.training
        self.model.eval()
        weighed = weigh([b.to(self.device) for b in batches], self.groups, self.config.loss.reduction, lambda own: own)
        total = sum(weighted_sum(token_nll(self.model, batch), batch).item() for batch in weighed)
        self.model.train(training)
        return total

    def _update(self, made: torch.optim.Optimizer, step: int) -> None:
        if self.config.optim.clip_norm is not None:
            self.clip_gradients(made, self.config.optim.clip_norm, "norm")
        for group in made.param_groups:
            group["lr"] = learning_rate(step, self.config.steps, self.config.optim)
        made.step()
        made.zero_grad()
        self.done = step + 1

    def _syncing_last(self, last: bool) -> Any:
        """Gradients are reduced over ranks once a step, with the last micro-batch."""
        wrapped: Any = self.trainer.strategy.model
        return nullcontext() if last or not hasattr(wrapped, "no_sync") else wrapped.no_sync()

    def _sum(self, value: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(value)
        return value

    def _sums(self, loss: Tensor, nll: Tensor, batch: Batch) -> Tensor:
        """(1 + 2R,): loss, then token losses and token counts of each recipe."""
        assert batch.loss_weight is not None
        counted = (batch.loss_weight > 0).float()
        zeros = torch.zeros(len(self.recipes), device=self.device)
        losses = zeros.index_add(0, batch.recipe, (nll.detach() * counted).sum(1))
        return torch.cat([loss.detach()[None], losses, zeros.index_add(0, batch.recipe, counted.sum(1))])

    def _report(self, sums: Tensor) -> dict[str, Tensor]:
        """`loss`, and the token mean of each recipe the step held."""
        count = len(self.recipes)
        means = sums[1 : 1 + count] / sums[1 + count :]
        return {
            "loss": sums[0],
            **{f"loss/{name}": mean for name, mean in zip(self.recipes, means, strict=True)},
        }


def token_nll(model: InstructBlip, batch: Batch) -> Tensor:
    """(B, T) negative log-likelihood of every target token."""
    assert batch.labels is not None
    nll: Tensor = model(**batch.inputs(), labels=batch.labels)
    return nll


def weighted_sum(nll: Tensor, batch: Batch) -> Tensor:
    """This micro-batch's share of the step's loss."""
    assert batch.loss_weight is not None
    return (nll * batch.loss_weight).sum()
