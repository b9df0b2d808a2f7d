"""Which pictures there are: the splits of the miniature, their scenes, ids and files."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from instructblip.miniature.programs import captions
from instructblip.miniature.scenes import COUNTS, Role, Scene, distinct

ITEMS = {  # pictures of an album, questions or statements of a set
    "coco_train": 1500,
    "coco_val": 100,
    "coco_test": 300,
    "vqav2_train": 4,  # questions about each picture of coco_train
    "vqav2_test": 3,  # and of coco_test
    "vsr_train": 120,
    "vsr_dev": 60,
    "vsr_test": 400,
}


@dataclass(frozen=True)
class Sizes:
    """How many there are of everything: ITEMS, a share of them, or what `given` says."""

    scale: float = 1.0
    given: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.given.get(name, max(1, round(ITEMS[name] * self.scale)))

    def __hash__(self) -> int:
        return hash((self.scale, tuple(sorted(self.given.items()))))


@dataclass(frozen=True)
class Album:
    """Where the pictures of one split come from. The ids lie above every id of the real COCO."""

    role: Role
    ids: range
    folders: tuple[str, ...]  # in turn
    counts: Sequence[int] = COUNTS  # of objects
    share: float = 1.0  # pictures for each item of ITEMS


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
    number = round(sizes[album] * source.share)
    scenes = distinct(number, source.role, rng, source.counts)
    ids = rng.sample(source.ids, number)
    return [
        Picture(id, folder, scene, tuple(captions(scene, rng)))
        for id, folder, scene in zip(ids, cycle(source.folders), scenes, strict=False)
    ]
