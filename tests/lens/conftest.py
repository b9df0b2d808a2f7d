"""The embedded world's tiny models, untrained, and a run of one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructblip.data.collate import Collator
from instructblip.data.processor import Processor
from instructblip.inference import Assistant
from instructblip.models.instructblip import build
from instructblip.models.tokenizers import tokenizers
from instructblip.training.run import opened
from tests.conftest import World, composed
from train import fit


def assistant(*overrides: str) -> Assistant:
    config = composed("train", "experiment=miniature", *overrides).model
    model, both = build(config, seed=0).eval(), tokenizers(config)
    collator = Collator.of(config, both, model.llm.model.config.is_encoder_decoder)
    return Assistant(model, Processor(collator, config.vision.image_size), both, config)


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
