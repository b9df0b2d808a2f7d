"""A small prepared miniature, configs composed as the programs compose them, and the real files where they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import pytest
import torch

from instructblip import recipes
from instructblip.cli import composed as composed  # which most tests take from here
from instructblip.config.training import TrainConfig
from instructblip.data.preparing.prepare import prepare
from instructblip.miniature import sources
from instructblip.miniature.albums import Sizes
from tests.fixtures.warm import Warm

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "real_samples"
SMALL = Sizes(
    scale=0.01,
    given={"coco_train": 40, "coco_val": 4, "coco_test": 12, "vqav2_train": 3, "vqav2_test": 2,
           "vsr_train": 8, "vsr_dev": 4, "vsr_test": 16}
)  # fmt: skip
RECIPES = ("coco_caption", "vqav2", "vsr")

torch.set_num_threads(1)


@dataclass(frozen=True)
class World:
    """Raw files and prepared data of a small embedded world."""

    raw: Path
    data: Path


def run_program(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, from the repository's root."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def run_ranks(count: int, *arguments: str, timeout: float = 240) -> None:
    """A program in `count` processes that find each other as torchrun's do; all must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip
    until = time.monotonic() + timeout
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        if any(process.poll() for process in processes):
            break  # the others would wait for the one that failed
        time.sleep(0.05)
    for process in processes:
        process.kill()
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, outputs


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    sources.write(folder / "raw", seed=0, sizes=SMALL)
    config = composed(
        "prepare", "recipe=all", f"paths.raw={folder}/raw", f"paths.data={folder}/data", "check_counts=false"
    )
    for name in RECIPES:
        recipe = recipes.load(name)
        for split in recipes.needed_splits(recipe):
            prepare(recipe, split, config, progress=lambda items, _: items)
    return World(folder / "raw", folder / "data")


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Starts the programs without their imports, for tests that start them often."""
    made = Warm()
    yield made
    made.end()


@pytest.fixture
def tiny(world: World, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A training config on the small world: `tiny("steps=4", ...)`."""

    def make(*overrides: str) -> TrainConfig:
        small = [
            "steps=4", "batch_size=8", "group_size=4", "trainer.micro_batch_size=4", "trainer.num_workers=0",
            "trainer.log_every=1", "name=run", f"paths.data={world.data}", f"paths.runs={tmp_path}/runs",
        ]  # fmt: skip
        return composed("train", "experiment=miniature/scratch", *small, *overrides)

    return make


def one_step(world: World, runs: Path) -> Path:
    """The folder of a finished run of one step, under `runs`."""
    from instructblip.training.run import opened  # seconds that most tests need not wait for
    from train import fit

    little = ["steps=1", "batch_size=4", "group_size=4", "trainer.micro_batch_size=4", "trainer.num_workers=0"]
    places = [f"paths.data={world.data}", f"paths.runs={runs}"]
    config = composed("train", "experiment=miniature/scratch", "name=run", *little, *places)
    with opened(config) as folder:
        fit(config, folder)
    return folder


@pytest.fixture
def real() -> Path:
    """The real annotation files and photographs, where they lie beside the repository."""
    if not REAL.is_dir():
        pytest.skip(f"no real samples in {REAL}")
    return REAL


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """On CI a skipped system test is a failure: there everything it needs can be installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and session.config.option.markexpr == "system" and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
