"""How the processes of a run share its work: one device, DDP's replicas, FSDP2's shards.

Processes are started by torchrun or srun and by nobody else: nothing here starts one, in a sweep neither.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from instructblip.choices import Precision, Strategy
from instructblip.config.training import TrainConfig, TrainerConfig
from instructblip.training.ranks import rank


@dataclass(frozen=True)
class Started:
    """What started this process, and how many it started."""

    by: str
    per_node: int
    nodes: int


def started() -> Started:
    """As the environment says: torchrun, srun (a job step; a batch script alone is none), or neither."""
    given = os.environ
    if "TORCHELASTIC_RUN_ID" in given:
        local = int(given["LOCAL_WORLD_SIZE"])
        return Started("torchrun", local, int(given["WORLD_SIZE"]) // local)
    if "SLURM_STEP_NUM_TASKS" in given:
        nodes = int(given.get("SLURM_STEP_NUM_NODES", given.get("SLURM_NNODES", "1")))
        return Started("srun", int(given["SLURM_STEP_NUM_TASKS"]) // nodes, nodes)
    return Started("", 1, 1)


def check(config: TrainConfig) -> None:
    """Refuses what cannot work, before anything is loaded.

    Raises:
        ValueError: fp16, a number of processes that nothing started, or a first process that cannot be reached.
    """
    settings, name = config.trainer, config.model.name
    if settings.precision is Precision.fp16:
        raise ValueError(
            f"model {name}: trainer.precision=fp16 is not offered. T5's feed-forward overflows in it (beyond 65,504), "
            "and gradients that pass through any language model fall below 6e-8 without a loss scale, which a step "
            "of several micro-batches does not keep. trainer.precision=bf16 needs none; fp32 runs everywhere"
        )
    _check_processes(settings, started())
    if settings.strategy is not Strategy.single:
        _check_address(environment())


def environment() -> ClusterEnvironment:
    """Where a process finds the others. Signals and requeueing are ours, not Lightning's."""
    by = started().by
    if by == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if by == "srun" else LightningEnvironment()


def arguments(settings: TrainerConfig) -> dict[str, Any]:
    """For Lightning's Trainer."""
    shared = settings.strategy is not Strategy.single
    return {
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": settings.num_nodes,
        "precision": settings.precision.value,
        "strategy": _strategy(settings) if shared else "auto",
        "plugins": [environment() if shared else LightningEnvironment()],
    }


def _strategy(settings: TrainerConfig) -> DDPStrategy | ModelParallelStrategy:
    timeout = timedelta(seconds=settings.timeout)
    if settings.strategy is Strategy.fsdp:
        world = settings.devices * settings.num_nodes
        return ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1, timeout=timeout)
    # No static graph: it assumes one backward before the first reduction, a step has several. No search for unused
    # parameters: what learns is always used, what is frozen is not DDP's.
    return DDPStrategy(timeout=timeout, gradient_as_bucket_view=True)


def _check_processes(settings: TrainerConfig, found: Started) -> None:
    devices, nodes = settings.devices, settings.num_nodes
    asked = f"trainer.devices={devices} trainer.num_nodes={nodes}"
    if settings.strategy is Strategy.single and devices * nodes > 1:
        raise ValueError(f"{asked} with trainer.strategy=single, which is one process: choose trainer=ddp or fsdp")
    if (devices, nodes) != (found.per_node, found.nodes):
        if found.by:
            parallel = "" if settings.strategy is not Strategy.single else "trainer=ddp "
            raise ValueError(
                f"{found.by} started {found.per_node} processes on each of {found.nodes} nodes, the config says "
                f"{asked}: set {parallel}trainer.devices={found.per_node} trainer.num_nodes={found.nodes}"
            )
        raise ValueError(
            f"{asked} asks for {devices * nodes} processes, and nothing started them: torchrun --nnodes {nodes} "
            f"--nproc_per_node {devices} train.py ..., or srun --nodes={nodes} --ntasks-per-node={devices} python "
            "train.py ..."
        )
    if found.by == "srun" and os.environ.get("SLURM_NTASKS_PER_NODE") != str(devices) and devices * nodes > 1:
        raise ValueError(
            f"SLURM's --ntasks-per-node is {os.environ.get('SLURM_NTASKS_PER_NODE', 'not set')} and has to equal "
            f"trainer.devices={devices}: set it for the job (#SBATCH --ntasks-per-node={devices})"
        )


def _check_address(found: ClusterEnvironment) -> None:
    """Otherwise the name would be looked up again and again until the timeout."""
    address, port = found.main_address, found.main_port
    try:
        known = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(
            f"the first process should be at {address}:{port}, and no machine of that name is known ({error}): set "
            "MASTER_ADDR to one that every node can reach"
        ) from error
    if rank() != 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # then torchrun itself listens
        return
    family, kind, protocol, _, where = known[0]
    with socket.socket(family, kind, protocol) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(where)
        except OSError as error:
            raise ValueError(
                f"the first process cannot listen at {address}:{port} ({error.strerror}): set MASTER_PORT to a free "
                "one, or MASTER_ADDR to an address of this machine"
            ) from error
