"""Which pictures there are: the splits of the miniature, their scenes, ids and files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from instructblip.miniature.programs import captions
from instructblip.miniature.scenes import COUNTS, Role, Scene, distinct


@dataclass(frozen=True)
class Sizes:
    """Pictures of COCO, questions VQAv2 asks about each of coco_train and of coco_test, statements of VSR."""

    coco_train: int = 1500
    coco_val: int = 100
    coco_test: int = 300
    train_questions: int = 4
    test_questions: int = 3
    vsr_train: int = 120
    vsr_dev: int = 60
    vsr_test: int = 400


@dataclass(frozen=True)
class Album:
    """Where the pictures of one split come from. The ids lie above every id of the real COCO."""

    role: Role
    ids: range
    folders: tuple[str, ...]  # in turn
    counts: Sequence[int] = COUNTS  # of objects
    share: float = 1.0  # pictures for each item that `Sizes` counts


FILE_NAMES = {
    "train2014": "COCO_train2014_{:012d}.jpg",
    "val2014": "COCO_val2014_{:012d}.jpg",
    "train2017": "{:012d}.jpg",
    "val2017": "{:012d}.jpg",
}
VSR_FOLDERS = ("train2017",) * 9 + ("val2017",)
ALBUMS = {
    "coco_train": Album(Role.tuning, range(600_000, 700_000), ("train2014",)),
    "coco_val": Album(Role.selection, range(700_000, 720_000), ("val2014",)),
    "coco_test": Album(Role.evaluation, range(720_000, 740_000), ("val2014",)),
    "vsr_train": Album(Role.tuning, range(740_000, 760_000), VSR_FOLDERS, (2, 3, 4), share=0.75),
    "vsr_dev": Album(Role.selection, range(760_000, 780_000), VSR_FOLDERS, (2, 3, 4), share=0.75),
    "vsr_test": Album(Role.evaluation, range(780_000, 800_000), VSR_FOLDERS, (2, 3, 4), share=0.75),
}


@dataclass(frozen=True)
class Picture:
    id: int
    folder: str
    scene: Scene
    captions: tuple[str, ...]

    @property
    def file_name(self) -> str:
        return FILE_NAMES[self.folder].format(self.id)

    @property
    def url(self) -> str:
        return f"http://images.cocodataset.org/{self.folder}/{self.file_name}"


def pictures(album: str, seed: int, sizes: Sizes) -> list[Picture]:
    """The pictures of one split, with distinct scenes."""
    rng = random.Random(f"{seed}/{album}")
    source = ALBUMS[album]
    number = round(getattr(sizes, album) * source.share)
    scenes = distinct(number, source.role, rng, source.counts)
    ids = rng.sample(source.ids, number)
    return [
        Picture(id, folder, scene, tuple(captions(scene, rng)))
        for id, folder, scene in zip(ids, cycle(source.folders), scenes, strict=False)
    ]
