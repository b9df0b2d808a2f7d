"""The embedded world's tiny models, untrained, and a run of one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructblip.models.instructblip import build
from instructblip.models.loaded import Loaded
from instructblip.models.tokenizers import tokenizers
from instructblip.training.run import opened
from tests.conftest import World, composed
from train import fit


def untrained(*overrides: str) -> Loaded:
    config = composed("train", "experiment=miniature", *overrides).model
    return Loaded(config, build(config, seed=0).eval(), tokenizers(config), "f00d")


@pytest.fixture(scope="session")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    runs = tmp_path_factory.mktemp("runs")
    little = ["steps=1", "batch_size=4", "group_size=4", "trainer.micro_batch_size=4", "trainer.num_workers=0"]
    config = composed(
        "train", "experiment=miniature", "name=run", *little, f"paths.data={world.data}", f"paths.runs={runs}"
    )
    with opened(config) as folder:
        fit(config, folder)
    return runs
