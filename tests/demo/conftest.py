"""A model of random weights in both families, and a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from instructblip.inference import Assistant
from instructblip.models.instructblip import build
from instructblip.models.loaded import Loaded
from instructblip.models.tokenizers import tokenizers
from tests.conftest import composed

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))


def untrained(*overrides: str) -> Assistant:
    config = composed("train", "experiment=miniature/scratch", *overrides).model
    return Assistant.of(Loaded(config, build(config, seed=1).eval(), tokenizers(config), ""))


@pytest.fixture(scope="package", params=["tiny_llama", "tiny_t5"])
def assistant(request: pytest.FixtureRequest) -> Assistant:
    return untrained(f"model={request.param}")
