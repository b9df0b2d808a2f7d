"""The Lightning module: one optimizer step per batch, where a batch is a list of micro-batches."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from instructblip.choices import Precision, Strategy
from instructblip.config.training import TrainConfig
from instructblip.data import keyed
from instructblip.data.collate import Batch
from instructblip.data.steps import Step
from instructblip.models.blocks import compile_blocks, hold_frozen, recompute, shard
from instructblip.models.checkpoint import Trained, base_fingerprint
from instructblip.models.instructblip import InstructBlip
from instructblip.training.gradients import QueryGradients
from instructblip.training.nonfinite import Origin, gradients_finite, origins
from instructblip.training.objectives import Objective
from instructblip.training.optim import clip, learning_rate, optimizer, sum_gradients
from instructblip.training.signals import Signals
from instructblip.training.state import TrainState, gather, restore_optimizer


class TrainingModule(LightningModule):
    """Holds a finished model; steps are counted from the run's beginning, also after a resume.

    Manual optimisation, because the micro-batches of a step share weights that need counts from all ranks.
    """

    def __init__(
        self,
        model: Trained,
        config: TrainConfig,
        objective: Objective,
        recipes: int,
        signals: Signals,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.config, self.objective, self.recipes = model, config, objective, recipes
        self.gradients = QueryGradients(model)
        self.signals = signals
        self.optimizer_state: Mapping[str, Tensor] | None = None  # of the checkpoint the run goes on from
        self.base = base_fingerprint(model)  # before anything is sharded
        self.done = 0  # steps finished since the run's beginning
        self.skipped = 0  # of them, those without an update
        self.bad_origins: list[Origin] | None = None  # why the step that has just ended was one of these
        self.learning_rate: float | None = None  # of the last update
        self.stopped_by: signal.Signals | None = None  # what all processes agreed to end the run for
        self.validated = False  # whether the step that has just ended was, on all processes
        self.selection: float | None = None  # and its score, the higher the better

    def configure_model(self) -> None:
        """Lightning's hook between the start of the processes and the wrapping of the model."""
        settings = self.config.trainer
        if isinstance(self.model, InstructBlip):
            if settings.precision is Precision.bf16:
                hold_frozen(self.model.llm, torch.bfloat16)
            if settings.activation_checkpointing:
                recompute(self.model.llm)
        if settings.compile:
            compile_blocks(self.model)
        if settings.strategy is Strategy.fsdp:
            assert self.device_mesh is not None
            shard(self.model, self.device_mesh["data_parallel"])
        tensors = (*self.named_parameters(), *self.named_buffers())
        constant = [name for name, tensor in tensors if not tensor.requires_grad]
        self._ddp_params_and_buffers_to_ignore = constant  # or DDP would send them around at the start

    def configure_optimizers(self) -> torch.optim.Optimizer:
        made = optimizer(self.model.named_parameters(), self.config.optim)
        if self.optimizer_state:
            restore_optimizer(self.model, made, self.optimizer_state)
        return made

    def on_train_start(self) -> None:
        self.signals.training = True

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        return batch  # micro-batches move one by one

    def training_step(self, step: Step, _: int) -> dict[str, Tensor]:
        """Backward over all micro-batches, one update. Returns the `loss` and `figures` (2, N), over all ranks:
        the sums of those that the objective names and of each recipe's gradient, and of what they are means over.
        """
        made = self.optimizers()
        assert isinstance(made, torch.optim.Optimizer)
        averaged = self.config.trainer.strategy is Strategy.ddp  # DDP takes the mean of gradients over ranks
        scale = self.trainer.world_size if averaged else 1
        self._agree(step.number, len(step.batches))
        batches = self.objective.prepare([b.to(self.device) for b in step.batches], self._sum)
        count = len(self.objective.names)
        sums = torch.zeros(1 + 2 * (count + self.recipes), device=self.device)
        for number, batch in enumerate(batches):
            self._draw_dropout(step.number, number)
            with self._syncing_last(number == len(batches) - 1):
                loss, figures = self.objective.loss(batch, step.number, self._sum)
                self.manual_backward(loss * scale)
            sums += torch.cat([loss.detach()[None], figures, self.gradients.by_recipe(batch, self.recipes)])
        if self._agreed(sums, made):
            norm = self._update(made, step.number)
        else:
            self.skipped += 1
            made.zero_grad()
            self.bad_origins = self._origins(batches, step.number)
            norm = sums.new_tensor(float("nan"))
        self.done = step.number + 1
        named, pulls = sums[1 : 1 + 2 * count].view(2, count), sums[1 + 2 * count :].view(2, self.recipes)
        return {"loss": sums[0], "grad_norm": norm, "figures": torch.cat([named, pulls], dim=1)}

    def on_train_epoch_end(self) -> None:
        self._agree(self.done, 0)

    def _agreed(self, sums: Tensor, made: torch.optim.Optimizer) -> bool:
        """Sums `sums` over the processes, in place, together with what all must know at a step's end, in one reduction.

        Sets `stopped_by`. Returns whether the loss, and the gradients of every process, are numbers.
        """
        bad = ~gradients_finite(parameter for group in made.param_groups for parameter in group["params"])
        told = torch.tensor(self.signals.counts, dtype=sums.dtype, device=self.device)
        all_sums = self._sum(torch.cat([sums, bad.to(sums.dtype)[None], told]))
        sums.copy_(all_sums[: len(sums)])
        somewhere_bad, *told_counts = all_sums[len(sums) :].tolist()
        self.stopped_by = self.signals.agreed(told_counts)
        self.bad_origins = None
        return not somewhere_bad and bool(torch.isfinite(sums[0]))

    def _origins(self, batches: Sequence[Batch], step: int) -> list[Origin]:
        """Where the loss or gradient of a step is no number, from all processes."""

        def loss_of(number: int, batch: Batch) -> Tensor:
            self._draw_dropout(step, number)
            return self.objective.loss(batch, step, _own)[0]

        own = origins(self.model, batches, loss_of, self.global_rank)
        if self.trainer.world_size == 1:
            return own
        everyones: list[list[Origin]] = [[]] * self.trainer.world_size
        torch.distributed.all_gather_object(everyones, own)
        return [origin for found in everyones for origin in found]

    def _draw_dropout(self, step: int, micro_batch: int) -> None:
        """The masks of a micro-batch are a function of its place, not of what was drawn before."""
        torch.manual_seed(keyed.key(self.config.seed, "dropout", step, micro_batch, self.global_rank))

    def state(self) -> TrainState:
        """What a checkpoint holds; called by all processes together."""
        return gather(self.model, self.trainer.optimizers[0])

    @torch.no_grad()
    def fixed_loss(self, batches: Sequence[Batch]) -> float:
        """The loss of given micro-batches, dropout off: what the same data cost before and after training."""
        training = self.model.training
        self.model.eval()
        alone = self.objective.prepare([b.to(self.device) for b in batches], _own)
        total = sum(self.objective.loss(batch, self.config.steps, _own)[0].item() for batch in alone)
        self.model.train(training)
        return total

    def _update(self, made: torch.optim.Optimizer, step: int) -> Tensor:
        """Returns the norm of the gradients before they were clipped."""
        if self.config.trainer.strategy is Strategy.fsdp:
            sum_gradients(self.model.parameters())
        norm = clip(self.model.parameters(), self.config.optim.clip_norm)
        self.learning_rate = learning_rate(step, self.config.steps, self.config.optim)
        for group in made.param_groups:
            group["lr"] = self.learning_rate * group["lr_scale"]
        made.step()
        made.zero_grad()
        return norm

    def _agree(self, step: int, batches: int) -> None:
        """Raises RuntimeError on all ranks when one has another step or another number of micro-batches."""
        if self.trainer.world_size == 1:
            return
        own = torch.tensor([step, batches, -step, -batches], device=self.device)
        torch.distributed.all_reduce(own, torch.distributed.ReduceOp.MAX)
        last, most, first, fewest = own[0].item(), own[1].item(), -own[2].item(), -own[3].item()
        if (first, fewest) != (last, most):
            raise RuntimeError(
                f"rank {self.global_rank} has {batches} micro-batches of step {step}, but the ranks are between steps "
                f"{first} and {last} and have {fewest} to {most}: they do not read the same stream"
            )

    def _syncing_last(self, last: bool) -> Any:
        """Gradients are reduced over ranks once a step, with the last micro-batch."""
        wrapped: Any = self.trainer.strategy.model
        return nullcontext() if last or not hasattr(wrapped, "no_sync") else wrapped.no_sync()

    def _sum(self, value: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(value)
        return value


def _own(value: Tensor) -> Tensor:
    """The sum over a single process."""
    return value
