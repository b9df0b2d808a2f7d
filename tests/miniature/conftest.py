import random
from pathlib import Path

import pytest

from instructblip.miniature.albums import Sizes
from instructblip.miniature.scenes import Role, Scene, distinct
from instructblip.miniature.sources import write

REAL = Path(__file__).resolve().parents[3] / "shared/real_samples"


@pytest.fixture(scope="session")
def seed() -> int:
    return 3


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    return Sizes(
        given={"coco_train": 120, "coco_val": 20, "coco_test": 60, "vsr_train": 20, "vsr_dev": 12, "vsr_test": 400}
    )


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: Sizes) -> Path:
    folder = tmp_path_factory.mktemp("miniature") / "raw"
    write(folder, seed, sizes)
    return folder


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return distinct(400, Role.tuning, random.Random(0))


@pytest.fixture(scope="session")
def real_samples() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"no real samples at {REAL}")
    return REAL
