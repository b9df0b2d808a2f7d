"""The embedded world's tiny models, untrained, and a run of one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructblip.models.instructblip import build
from instructblip.models.loaded import Loaded
from instructblip.models.tokenizers import tokenizers
from tests.conftest import World, composed, one_step


def untrained(*overrides: str) -> Loaded:
    config = composed("train", "experiment=miniature/scratch", *overrides).model
    return Loaded(config, build(config, seed=0).eval(), tokenizers(config), "f00d")


@pytest.fixture(scope="session")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    runs = tmp_path_factory.mktemp("runs")
    one_step(world, runs)
    return runs
