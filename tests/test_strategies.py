"""Every strategy in real processes: the same weights, checkpoints that change hands, and faults that are named."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instructblip.config.training import TrainConfig
from instructblip.training.checkpoint import last_checkpoint
from instructblip.training.run import opened
from tests.conftest import run_program, run_ranks
from train import fit

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
Tiny = Callable[..., TrainConfig]
TRAINING = [
    "steps=6", "trainer.checkpoint_every=2", "trainer.keep_checkpoints=3", "trainer.micro_batch_size=2",
    "optim.clip_norm=0.5", "resume=auto",
]  # fmt: skip
FROZEN = "model.unfreeze=[]"
APART = 1e-5  # of weights after six steps of 2e-3: float32 sums in another order


def alone(config: TrainConfig) -> None:
    config.experiment = ["miniature/scratch"]  # as the program says it, or the others could not go on from here
    with opened(config) as run:
        fit(config, run)


def pair(config: TrainConfig, *overrides: str, program: tuple[str, ...] = ("train.py",)) -> None:
    run_ranks(
        2, *program, "experiment=miniature/scratch", "batch_size=8", "group_size=4", "trainer.num_workers=0",
        "trainer.log_every=1", "trainer.devices=2", f"paths.data={config.paths.data}", f"paths.runs={config.paths.runs}",
        *TRAINING, *overrides, timeout=400,
    )  # fmt: skip


def apart(one: Path, other: Path) -> float:
    """Largest difference of weights and moments of two runs' last checkpoints."""
    folders = [found.folder for run in (one, other) if (found := last_checkpoint(run))]
    largest = 0.0
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(folder / name) for folder in folders)
        assert a.keys() == b.keys()
        largest = max(largest, *((a[key].float() - b[key].float()).abs().max().item() for key in a))
    return largest


def interrupted(run: Path, name: str) -> None:
    """A copy of the run as it stood after four of its six steps."""
    copy = run.with_name(name)
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints/step-00000006")
    (copy / "finished.json").unlink()


@pytest.mark.parametrize("unfreeze", [FROZEN, "model.unfreeze=[vision,llm]"])
def test_every_strategy_ends_with_the_same_weights_and_goes_on_from_the_others(tiny: Tiny, unfreeze: str) -> None:
    """Gradients are clipped in every step, so the norm is that of the whole gradient too."""
    runs = Path(tiny().paths.runs)
    config = tiny(*TRAINING, unfreeze, "name=single")
    alone(config)
    pair(config, unfreeze, "trainer.strategy=fsdp", "name=fsdp")
    assert apart(runs / "single", runs / "fsdp") < APART
    interrupted(runs / "single", "single-fsdp")
    pair(config, unfreeze, "trainer.strategy=fsdp", "name=single-fsdp")
    interrupted(runs / "fsdp", "fsdp-ddp")
    pair(config, unfreeze, "trainer.strategy=ddp", "name=fsdp-ddp")
    interrupted(runs / "fsdp-ddp", "fsdp-ddp-single")
    alone(tiny(*TRAINING, unfreeze, "name=fsdp-ddp-single"))
    for name in ("single-fsdp", "fsdp-ddp", "fsdp-ddp-single"):
        assert apart(runs / "single", runs / name) < APART, name


def test_recomputed_layers_that_are_spread(tiny: Tiny) -> None:
    runs = Path(tiny().paths.runs)
    config = tiny(*TRAINING, FROZEN, "name=single")
    alone(config)
    pair(config, FROZEN, "trainer.strategy=fsdp", "trainer.activation_checkpointing=true", "name=fsdp")
    assert apart(runs / "single", runs / "fsdp") < APART


def test_compiled_layers_give_the_same_losses(tiny: Tiny) -> None:
    """Tolerance 1e-5 of weights: the kernels sum in another order."""
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler, and there is no g++")
    runs = Path(tiny().paths.runs)
    for name, on in (("plain", "false"), ("compiled", "true")):
        alone(tiny(*TRAINING, FROZEN, f"trainer.compile={on}", f"name={name}"))
    assert apart(runs / "plain", runs / "compiled") < APART
    torch.compiler.reset()


@pytest.mark.parametrize("overrides", [[], ["trainer.strategy=fsdp"]], ids=["ddp", "fsdp"])
def test_selfcheck_passes_and_finds_a_planted_fault(overrides: list[str]) -> None:
    right, wrong = (
        run_program("train.py", "experiment=miniature/scratch", f"selfcheck={word}", *overrides, timeout=500)
        for word in ("true", "planted")
    )
    assert right.returncode == 0, right.stdout + right.stderr
    assert right.stdout.count(" equal ") == 8 and "1 x 8 and 8 x 1" in right.stdout
    assert wrong.returncode == 1 and wrong.stdout.count("DIFFERENT") == 8 and "was found" in wrong.stdout


def test_selfcheck_of_the_processes_that_were_started(tiny: Tiny) -> None:
    run_ranks(
        2,
        "train.py",
        "experiment=miniature/scratch",
        "selfcheck=true",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        timeout=400,
    )


UNEVEN = """
import os, sys, time, train
from instructblip.data.steps import Steps
read = Steps.read
Steps.read = lambda self, number: read(self, number + (os.environ["RANK"] == "1" and number >= 3))
said = sys.argv.pop(1)
sys.argv[0] = "train.py"
try:
    train.main()
except RuntimeError as error:
    open(said + os.environ["RANK"], "w").write(str(error))
    time.sleep(10)  # the first to end has the other killed
    raise
"""


def test_uneven_data_is_an_error_on_all_ranks_at_the_same_step(tiny: Tiny, tmp_path: Path) -> None:
    """Rank 1 loses the step after the third."""
    said = tmp_path / "said"
    with pytest.raises(AssertionError):
        pair(tiny(), FROZEN, "trainer.strategy=ddp", "name=uneven", program=("-c", UNEVEN, str(said)))
    for step, rank in ((3, 0), (4, 1)):
        assert said.with_name(f"said{rank}").read_text() == (
            f"rank {rank} has 2 micro-batches of step {step}, but the ranks are between steps 3 and 4 and have 2 to 2: "
            "they do not read the same stream"
        )


@pytest.mark.parametrize("fault", ["port", "address"])
def test_a_first_process_that_cannot_be_reached_is_named_at_once(
    tiny: Tiny, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        address = "127.0.0.1" if fault == "port" else "no-such-host.invalid"
        for name, value in {
            "MASTER_ADDR": address, "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0",
            "LOCAL_RANK": "0", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
        }.items():  # fmt: skip
            monkeypatch.setitem(os.environ, name, value)
        began = time.monotonic()
        done = run_program(
            "train.py",
            "experiment=miniature/scratch",
            "trainer.devices=2",
            "trainer.strategy=ddp",
            "steps=1",
            timeout=60,
        )
    assert done.returncode == 2 and f"{address}:{port}" in done.stderr, f"{time.monotonic() - began} s: {done.stderr}"
