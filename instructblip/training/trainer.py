"""Lightning's Trainer from the config, with the callbacks of a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from instructblip.config.training import TrainConfig
from instructblip.training.callbacks.bad_media import BadMedia
from instructblip.training.callbacks.fixed_batch import FixedBatch
from instructblip.training.callbacks.hanging import Hanging
from instructblip.training.callbacks.logging import Logging
from instructblip.training.callbacks.measuring import Ending, Measuring
from instructblip.training.callbacks.metrics import Metrics
from instructblip.training.callbacks.nonfinite import NonFinite
from instructblip.training.callbacks.progress import Progressing
from instructblip.training.callbacks.resuming import Resuming
from instructblip.training.callbacks.saving import Checkpointing, Counting
from instructblip.training.callbacks.validating import Validating
from instructblip.training.checkpoint import inherited
from instructblip.training.datamodule import StepData
from instructblip.training.disk import Disk
from instructblip.training.ledger import Ledger
from instructblip.training.ranks import rank
from instructblip.training.strategy import arguments


def trainer(config: TrainConfig, run: Path, steps: StepData, figures: Sequence[str]) -> Trainer:
    """A Trainer for what is left of a run; `figures` are what the objective reports.

    Checkpoints, signals, sampling and accumulation are ours, not Lightning's.
    """
    quiet()
    settings = config.trainer
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    made = Trainer(
        **arguments(settings),
        max_epochs=1,  # the data end with the last step
        callbacks=_callbacks(config, run, steps, figures),
        logger=False,  # ours begin once it is known where the run goes on
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    # its handlers broadcast (a hang) and requeue by themselves; there is no public way to keep them out
    made._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return made


def quiet() -> None:
    """Without what Lightning says on every start, of which nothing is news here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Found .* module.s. in eval mode")  # the frozen backbones, on purpose
    warnings.filterwarnings("ignore", "You have overridden `transfer_batch_to_device`")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # which nothing changes in place
    warnings.filterwarnings("ignore", "The `srun` command is available")
    warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning's own use of torch


def _callbacks(config: TrainConfig, run: Path, steps: StepData, figures: Sequence[str]) -> list[Callback]:
    """What is logged is the first process' alone; every process counts, and has its part in what is saved."""
    ledger = Ledger(steps.data)
    measuring = Measuring(config, figures, steps.data.names)
    disk = Disk(config.trainer.on_full_disk)
    logging = Logging(run, config, measuring, steps, disk) if rank() == 0 else None
    logged = [Metrics(run, measuring, steps, disk), Progressing(config, measuring, steps), logging] if logging else []
    return [
        Hanging(run, config),
        Resuming(run, steps, ledger),
        measuring,
        *logged,
        NonFinite(run, config, disk),
        *([Validating(run, config, steps, logging, disk)] if config.validation.every else []),
        BadMedia(run, config, disk),
        Counting(ledger),
        Checkpointing(run, config, steps.data, list(chain(*inherited(config.model).values())), ledger),
        FixedBatch(run, steps),
        Ending(measuring),
    ]
