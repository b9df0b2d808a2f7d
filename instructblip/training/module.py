"""The Lightning module: one optimizer step per batch, where a batch is a list of micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from instructblip.config.training import TrainConfig
from instructblip.data import keyed
from instructblip.data.collate import Batch
from instructblip.data.steps import Step
from instructblip.models.checkpoint import base_fingerprint
from instructblip.models.instructblip import InstructBlip
from instructblip.training.gradients import QueryGradients
from instructblip.training.objectives import Objective
from instructblip.training.optim import learning_rate, optimizer
from instructblip.training.state import TrainState, gather, restore_optimizer


class TrainingModule(LightningModule):
    """Holds a finished model; steps are counted from the run's beginning, also after a resume.

    Manual optimisation, because the micro-batches of a step share weights that need counts from all ranks.
    """

    def __init__(
        self,
        model: InstructBlip,
        config: TrainConfig,
        objective: Objective,
        recipes: int,
        optimizer_state: Mapping[str, Tensor] | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.config, self.objective, self.recipes = model, config, objective, recipes
        self.gradients = QueryGradients(model)
        self._optimizer_state = optimizer_state
        self.base = base_fingerprint(model)  # before anything is sharded
        self.done = 0  # steps finished since the run's beginning

    def configure_optimizers(self) -> torch.optim.Optimizer:
        made = optimizer(self.model.named_parameters(), self.config.optim)
        if self._optimizer_state:
            restore_optimizer(self.model, made, self._optimizer_state)
        return made

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        return batch  # micro-batches move one by one

    def training_step(self, step: Step, _: int) -> dict[str, Tensor]:
        """Backward over all micro-batches, one update. Returns the `loss` and `figures` (2, N), over all ranks:
        the sums of those that the objective names and of each recipe's gradient, and of what they are means over.
        """
        made = self.optimizers()
        assert isinstance(made, torch.optim.Optimizer)
        batches = self.objective.prepare([b.to(self.device) for b in step.batches], self._sum)
        count = len(self.objective.names)
        sums = torch.zeros(1 + 2 * (count + self.recipes), device=self.device)
        for number, batch in enumerate(batches):
            torch.manual_seed(keyed.key(self.config.seed, "dropout", step.number, number, self.global_rank))
            with self._syncing_last(number == len(batches) - 1):
                loss, figures = self.objective.loss(batch, step.number)
                self.manual_backward(loss * self.trainer.world_size)  # DDP takes the mean of gradients over ranks
            sums += torch.cat([loss.detach()[None], figures, self.gradients.by_recipe(batch, self.recipes)])
        sums = self._sum(sums)
        if not torch.isfinite(sums[0]):
            uids = [uid for batch in batches for uid in batch.uids]
            raise FloatingPointError(f"loss {sums[0].item()} at step {step.number}; samples of this rank: {uids}")
        self._update(made, step.number)
        named, pulls = sums[1 : 1 + 2 * count].view(2, count), sums[1 + 2 * count :].view(2, self.recipes)
        return {"loss": sums[0], "figures": torch.cat([named, pulls], dim=1)}

    def state(self) -> TrainState:
        """What a checkpoint holds; called by all processes together."""
        return gather(self.model, self.trainer.optimizers[0])

    @torch.no_grad()
    def fixed_loss(self, batches: Sequence[Batch]) -> float:
        """The loss of given micro-batches, dropout off: what the same data cost before and after training."""
        training = self.model.training
        self.model.eval()
        alone = self.objective.prepare([b.to(self.device) for b in batches], lambda own: own)
        total = sum(self.objective.loss(batch, self.config.steps)[0].item() for batch in alone)
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
