"""Sweeps on a real SLURM, two nodes on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, World
from tests.fixtures.slurm import Unavailable, cluster

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    try:
        with cluster(tmp_path_factory.mktemp("slurm")) as environment:
            yield environment
    except Unavailable as reason:
        pytest.skip(f"no SLURM: {reason}")


def program(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_large_set_is_prepared_by_an_array_and_joined(slurm: dict[str, str], world: World, tmp_path: Path) -> None:
    paths = [f"paths.raw={world.raw}", f"paths.runs={tmp_path}/runs", "recipe=web_capfilt", "check_counts=false"]
    parts = [*paths, f"paths.data={tmp_path}/parts", "parts=4"]
    nodes = [
        "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=1",
        "hydra.launcher.timeout_min=10",
    ]
    swept = program("prepare.py", "-m", *parts, "part=range(0,4)", *nodes, environment=slurm)
    assert swept.returncode == 0, swept.stderr
    logs = list((tmp_path / "runs/.sweeps").rglob("*_log.out"))
    assert len(logs) == 4, "four tasks of an array"
    joined = program("prepare.py", *parts, "join=true", environment=slurm)
    assert joined.returncode == 0, joined.stderr
    whole = program("prepare.py", *paths, f"paths.data={tmp_path}/whole", environment=slurm)
    assert whole.returncode == 0, whole.stderr
    tables = [tmp_path / name / "tables/web_capfilt/train.arrow" for name in ("parts", "whole")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
