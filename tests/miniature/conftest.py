import random
from pathlib import Path

import pytest

from instructblip.miniature.albums import ALBUMS, Picture, Sizes, pictures
from instructblip.miniature.scenes import Role, Scene, distinct
from instructblip.miniature.sources import write

REAL = Path(__file__).resolve().parents[3] / "shared/real_samples"


@pytest.fixture(scope="session")
def seed() -> int:
    return 3


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    return Sizes(
        scale=0.1,
        given={
            "coco_train": 400,
            "coco_val": 20,
            "coco_test": 60,
            "vqav2_train": 4,
            "vqav2_test": 3,
            "web": 300,
            "books_train": 60,
            "vsr_train": 20,
            "vsr_dev": 12,
            "vsr_test": 400,
            "textvqa_val": 120,
            "vizwiz_val": 400,
            "aokvqa_val": 60,
            "okvqa_test": 60,
        },
    )


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: Sizes) -> Path:
    folder = tmp_path_factory.mktemp("miniature") / "raw"
    write(folder, seed, sizes)
    return folder


@pytest.fixture(scope="session")
def albums(seed: int, sizes: Sizes) -> dict[str, list[Picture]]:
    return {name: pictures(name, seed, sizes) for name in ALBUMS}


@pytest.fixture(scope="session")
def by_id(albums: dict[str, list[Picture]]) -> dict[int, Picture]:
    """Of the COCO pictures."""
    return {picture.id: picture for name, album in albums.items() if ALBUMS[name].pool == "coco" for picture in album}


@pytest.fixture(scope="session")
def by_key(albums: dict[str, list[Picture]]) -> dict[tuple[str, str], Picture]:
    """Of all pictures, by pool and key."""
    found = {(ALBUMS[name].pool, picture.key): picture for name, album in albums.items() for picture in album}
    assert len(found) == sum(map(len, albums.values()))
    return found


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return distinct(400, Role.tuning, random.Random(0))


@pytest.fixture(scope="session")
def real_samples() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"no real samples at {REAL}")
    return REAL
