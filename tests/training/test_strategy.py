"""What is refused before a model is loaded, and what the strategies are told."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from instructblip.config.training import TrainConfig
from instructblip.models.checkpoint import base_fingerprint
from instructblip.models.instructblip import build
from instructblip.training.module import TrainingModule
from instructblip.training.objectives import objective
from instructblip.training.run import load_model, opened
from instructblip.training.signals import Signals
from instructblip.training.strategy import arguments, check
from train import fit

from .test_state import in_processes

Tiny = Callable[..., TrainConfig]
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "0",
            "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": "1"}  # fmt: skip
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS": "4", "SLURM_PROCID": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "SLURM_JOB_ID": "7"}  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "environment", "message"),
    [
        (["trainer=ddp"], {}, r"asks for 8 processes, and nothing started them: torchrun --nnodes 1 --nproc_per_node 8 train\.py"),
        (["trainer=fsdp", "trainer.num_nodes=2"], {}, r"16 processes.*srun --nodes=2 --ntasks-per-node=8"),
        (["trainer=ddp"], {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, "nothing started them"),  # a batch script alone
        (["trainer.devices=2"], {}, "trainer.strategy=single, which is one process: choose trainer=ddp or fsdp"),
        ([], TORCHRUN, r"torchrun started 4 processes on each of 2 nodes.*set trainer=ddp trainer\.devices=4 trainer\.num_nodes=2"),
        (["trainer=ddp"], TORCHRUN, r"the config says trainer\.devices=8 trainer\.num_nodes=1: set trainer\.devices=4"),
        (["trainer=ddp"], SRUN, r"srun started 2 processes on each of 2 nodes"),
        (["trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2"], SRUN, r"--ntasks-per-node is not set and has to equal trainer\.devices=2"),
        (["trainer.precision=fp16", "model=tiny_t5"], {}, r"model tiny_t5: trainer\.precision=fp16 is not offered"),
        (["trainer.strategy=ddp"], {"MASTER_ADDR": "no-such-host.invalid", "MASTER_PORT": "29555"}, r"at no-such-host\.invalid:29555, and no machine"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_loaded(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, overrides: list[str], environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        check(tiny(*overrides))


def test_what_fits_its_launcher_is_not_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tiny())
    two = ["trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2"]
    for name, value in {**SRUN, "SLURM_NTASKS_PER_NODE": "2"}.items():
        monkeypatch.setenv(name, value)
    check(tiny(*two))
    for name, value in {**TORCHRUN, "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    check(tiny(*two))


def test_a_port_in_use_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(ValueError, match=rf"cannot listen at 127\.0\.0\.1:{port} \(Address already in use\)"):
            check(tiny("trainer.strategy=ddp"))
    check(tiny("trainer.strategy=ddp"))


def test_the_timeout_reaches_the_process_group(tiny: Tiny) -> None:
    for name, kind in (("ddp", DDPStrategy), ("fsdp", ModelParallelStrategy)):
        made = arguments(tiny(f"trainer.strategy={name}", "trainer.timeout=77").trainer)["strategy"]
        assert isinstance(made, kind) and made._timeout.total_seconds() == 77


def module(config: TrainConfig) -> TrainingModule:
    model = build(config.model, config.seed)
    return TrainingModule(model, config, objective(config, model, ["a"]), 1, Signals())


def test_ddp_sends_nothing_frozen_around(tiny: Tiny) -> None:
    made = module(tiny("model.unfreeze=[]"))
    made.configure_model()
    left = {name for name, _ in made.named_parameters()} - set(made._ddp_params_and_buffers_to_ignore)
    assert left == {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("model.llm.", "model.vision.")) for name in left)


def disagree(rank: int, steps: list[int], batches: list[int]) -> None:
    fake: Any = SimpleNamespace(trainer=SimpleNamespace(world_size=2), device=torch.device("cpu"), global_rank=rank)
    TrainingModule._agree(fake, 4, 2)
    with pytest.raises(RuntimeError, match=rf"rank {rank} has {batches[rank]} micro-batches of step {steps[rank]}"):
        TrainingModule._agree(fake, steps[rank], batches[rank])


def test_a_frozen_language_model_is_held_in_what_it_is_computed_in(tiny: Tiny) -> None:
    config = tiny("model.unfreeze=[]", "trainer.precision=bf16", "steps=2")
    made = module(config)
    before = base_fingerprint(made.model)
    made.configure_model()
    assert {parameter.dtype for parameter in made.model.llm.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in made.model.qformer.parameters()} == {torch.float32}
    assert made.base == before != base_fingerprint(made.model), "a checkpoint names the base that is in the files"
    with opened(config) as run:
        fit(config, run)
    assert load_model(run, "cpu").checkpoint


@pytest.mark.parametrize(("steps", "batches"), [([4, 5], [2, 2]), ([4, 4], [1, 2]), ([4, 4], [0, 2])])
def test_ranks_that_read_another_stream_all_say_so(steps: list[int], batches: list[int]) -> None:
    in_processes(2, disagree, steps, batches)
