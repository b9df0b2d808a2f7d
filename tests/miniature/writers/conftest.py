"""The sets of reasoning, choices, dialogues and clips, the evaluated ones at full size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instructblip.miniature.albums import Sizes
from instructblip.miniature.sources import WRITERS
from instructblip.miniature.world import World

NAMES = ("vsr", "gqa", "scienceqa", "iconqa", "hateful_memes", "visdial", "llava", "msvd_qa", "msrvtt_qa", "ivqa")


@pytest.fixture(scope="session")
def world() -> World:
    return World(5, Sizes(given={"coco_train": 200, "msvd_qa_test": 120, "msrvtt_qa_test": 120, "ivqa_test": 120}))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """The raw tree."""
    folder = tmp_path_factory.mktemp("writers")
    for name in NAMES:
        WRITERS[name](folder, world)
    return folder


@pytest.fixture(scope="session")
def load(written: Path) -> Callable[[str], Any]:
    """The content of a JSON or JSON-lines file of the tree."""

    def read(name: str) -> Any:
        text = (written / name).read_text()
        return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)

    return read
