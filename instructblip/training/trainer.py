"""Lightning's Trainer from the config, with the callbacks of a run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger

from instructblip.config import LoggerConfig, TrainConfig
from instructblip.models.paths import init_paths
from instructblip.training import callbacks
from instructblip.training.checkpoint import inherited
from instructblip.training.datamodule import StepData
from instructblip.training.run import rank


def trainer(config: TrainConfig, run: Path, steps: StepData) -> Trainer:
    """A Trainer for the steps that are left. Checkpoints, sampling and accumulation are ours, not Lightning's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Found .* module.s. in eval mode")  # the frozen backbones, on purpose
    warnings.filterwarnings("ignore", "You have overridden `transfer_batch_to_device`")
    warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning's own use of torch
    settings = config.trainer
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    return Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision.value,
        max_steps=config.steps - steps.first,
        max_epochs=1,
        callbacks=_callbacks(config, run, steps),
        logger=_wandb(config.logger, run) if config.logger.wandb else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _callbacks(config: TrainConfig, run: Path, steps: StepData) -> list[Callback]:
    """Files are written by the first process alone; every process counts its unreadable pictures."""
    if rank() != 0:
        return [callbacks.BadMedia(run, config)]
    return [
        callbacks.BadMedia(run, config),
        callbacks.Metrics(run, config, steps.data.names, steps.first),
        callbacks.Checkpointing(run, config, steps.data, inherited(init_paths(config.model))),
        callbacks.Progressing(config, steps.first),
        callbacks.FixedBatch(run, steps),
    ]


def _wandb(config: LoggerConfig, run: Path) -> WandbLogger:
    return WandbLogger(project=config.project, name=run.name, id=run.name, save_dir=run, offline=config.offline)
