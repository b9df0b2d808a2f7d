"""Which pictures there are: the splits of the miniature, their scenes, ids and files."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import PurePosixPath

from instructblip.miniature.books import cover, isbn
from instructblip.miniature.drawing import PLAIN, Background, Look
from instructblip.miniature.reasoning import with_hop
from instructblip.miniature.scenes import Domain, Draw, Role, Scene, distinct, sample

ITEMS = {  # pictures of an album, questions or statements of a set; of training sets a 1/80 of the official S_d
    "coco_train": 1417,  # 5 captions each
    "coco_val": 100,
    "coco_test": 510,  # of a few nothing that is known can be asked
    "coco_restval": 50,
    "coco_test2015": 50,
    "vqav2_train": 4,  # questions about each picture of coco_train
    "vqav2_test": 2,  # and of coco_test and coco_test2015
    "okvqa_train": 112,  # questions, about as many pictures of coco_train
    "okvqa_test": 500,
    "aokvqa_train": 213,
    "aokvqa_val": 500,
    "aokvqa_test": 50,
    "web_llava": 100,
    "web": 3_000,  # a 1/80 would be 173,000
    "textvqa_train": 274,  # with 5 captions each
    "textvqa_val": 500,
    "textvqa_test": 50,
    "books_train": 2004,  # with 5 questions each
    "books_val": 50,
    "books_test": 200,
    "nocaps_val": 500,
    "nocaps_test": 50,
    "flickr30k_train": 100,
    "flickr30k_val": 50,
    "flickr30k_test": 500,
    "vizwiz_train": 100,
    "vizwiz_val": 510,
    "vizwiz_test": 500,
    "vsr_train": 120,
    "vsr_dev": 60,
    "vsr_test": 500,
    # questions, problems, memes; of Visual Dialog dialogues of ten rounds, of LLaVA-Instruct records
    "gqa_train": 60,
    "gqa_testdev": 500,
    "iconqa_train": 30,
    "iconqa_val": 20,
    "iconqa_test": 500,
    "iconqa_others": 6,  # of each other type, in each split
    "scienceqa_train": 60,
    "scienceqa_val": 20,
    "scienceqa_test": 500,
    "visdial_val": 60,
    "visdial_test": 10,
    "llava_dialogue": 725,
    "llava_detail": 287,
    "llava_why": 962,
    "hateful_memes_train": 60,
    "hateful_memes_dev_seen": 500,
    "hateful_memes_dev_unseen": 60,
    "hateful_memes_test_seen": 40,
    "hateful_memes_test_unseen": 40,
    "msvd_qa_train": 150,
    "msvd_qa_val": 30,
    "msvd_qa_test": 501,
    "msrvtt_qa_train": 150,
    "msrvtt_qa_val": 30,
    "msrvtt_qa_test": 501,
    "ivqa_train": 100,
    "ivqa_val": 20,
    "ivqa_test": 500,
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
    """Where the pictures of one split come from: a media pool, names in it, scenes, style."""

    pool: str
    role: Role
    ids: range
    names: tuple[Callable[[int], str], ...]  # of the files under the pool's folder, in turn
    draw: Draw = sample
    looks: Sequence[Look] = (PLAIN,)  # one is drawn for each picture
    share: float = 1.0  # pictures for each item of ITEMS


@dataclass(frozen=True)
class Picture:
    id: int
    file: str  # under the folder of its pool
    scene: Scene
    look: Look = PLAIN

    @property
    def folder(self) -> str:
        return PurePosixPath(self.file).parent.name

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.file).name

    @property
    def key(self) -> str:
        """In its pool: the file's name without its extension, or its folder's where all files have one name."""
        return self.folder if self.file_name == "image.png" else PurePosixPath(self.file).stem

    @property
    def url(self) -> str:
        """Of a COCO picture."""
        return f"http://images.cocodataset.org/{self.file}"


def pictures(album: str, seed: int, sizes: Sizes, only: Role | None = None) -> list[Picture]:
    """The pictures of one split, with distinct scenes: of the split's role, or of `only` that one."""
    rng = random.Random(f"{seed}/{album}")
    source = ALBUMS[album]
    number = round(sizes[album] * source.share)
    scenes = distinct(number, only or source.role, rng, source.draw)
    ids = rng.sample(source.ids, number)
    return [
        Picture(id, name(id), scene, rng.choice(source.looks))
        for id, name, scene in zip(ids, cycle(source.names), scenes, strict=False)
    ]


TRAIN_2014 = ("train2014/COCO_train2014_{:012d}.jpg".format,)
TEST_2015 = ("test2015/COCO_test2015_{:012d}.jpg".format,)
VAL_2014 = ("val2014/COCO_val2014_{:012d}.jpg".format,)
MOSTLY_TRAIN_2017 = ("train2017/{:012d}.jpg".format,) * 9 + ("val2017/{:012d}.jpg".format,)
# one in 200 of the official covers is a GIF or a PNG; here one in 25, so that small trees have one
BOOK_COVERS = (*[lambda id: f"{isbn(id)}.jpg"] * 24, lambda id: f"{isbn(id)}.gif")
few = partial(sample, counts=(2, 3, 4))
many = partial(sample, counts=(5, 6, 7))
of_any_domain = partial(sample, counts=(2, 3, 4), domains=tuple(Domain))
printed = partial(sample, counts=(1, 2, 3), words=(1, 1, 2))
printed_twice = partial(sample, counts=(2, 3, 4), words=(2, 3))
printed_on = partial(sample, counts=(2, 3, 4), words=(1, 2, 3))
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
SNAPSHOTS = tuple(Look(blur=blur, crop=crop) for blur in (0.5, 0.8, 1.1, 1.4, 12.0) for crop in CORNERS)
STRIPES = (Look(background=Background.striped),)
TRAIN_IMAGES, TEST_IMAGES = ("train_images/{:016x}.jpg".format,), ("test_images/{:016x}.jpg".format,)
HEX = [range(16**16 // 32 * k, 16**16 // 32 * (k + 1)) for k in range(16)]  # ids of 16 digits, shared out

# The ids of COCO, Flickr30k and VizWiz lie above every real one; those of books and of Open Images may not.
ALBUMS = {
    "coco_train": Album("coco", Role.tuning, range(600_000, 700_000), TRAIN_2014),
    "coco_val": Album("coco", Role.selection, range(700_000, 720_000), VAL_2014),
    "coco_test": Album("coco", Role.evaluation, range(720_000, 740_000), VAL_2014),
    "coco_restval": Album("coco", Role.tuning, range(840_000, 860_000), VAL_2014),
    "coco_test2015": Album("coco", Role.evaluation, range(860_000, 880_000), TEST_2015),
    "vsr_train": Album("coco", Role.tuning, range(740_000, 760_000), MOSTLY_TRAIN_2017, few, share=0.75),
    "vsr_dev": Album("coco", Role.selection, range(760_000, 780_000), MOSTLY_TRAIN_2017, few, share=0.75),
    "vsr_test": Album("coco", Role.evaluation, range(780_000, 800_000), MOSTLY_TRAIN_2017, few, share=0.75),
    "textvqa_train": Album("openimages_textvqa", Role.tuning, HEX[0], TRAIN_IMAGES, printed),
    "textvqa_val": Album("openimages_textvqa", Role.evaluation, HEX[1], TRAIN_IMAGES, printed_twice),
    "textvqa_test": Album("openimages_textvqa", Role.evaluation, HEX[2], TEST_IMAGES, printed_twice),
    "books_train": Album("amazon_books", Role.tuning, range(0, 10**9, 3), BOOK_COVERS, cover),
    "books_val": Album("amazon_books", Role.selection, range(1, 10**9, 3), BOOK_COVERS, cover),
    "books_test": Album("amazon_books", Role.evaluation, range(2, 10**9, 3), BOOK_COVERS, cover),
    "web": Album("web_capfilt", Role.tuning, range(10**8), ("{:09d}.jpg".format,)),
    "web_llava": Album("web_capfilt", Role.tuning, range(10**8), ("LLaVA-Pretrain/images/00000/{:09d}.jpg".format,)),
    "nocaps_val": Album("openimages_nocaps", Role.evaluation, HEX[3], ("{:016x}.jpg".format,), of_any_domain),
    "nocaps_test": Album("openimages_nocaps", Role.evaluation, HEX[4], ("{:016x}.jpg".format,), of_any_domain),
    **{
        f"flickr30k_{split}": Album("flickr30k", role, ids, ("flickr30k-images/{}.jpg".format,), looks=STRIPES)
        for split, role, ids in (
            ("train", Role.tuning, range(9_000_000_000, 9_300_000_000)),
            ("val", Role.selection, range(9_300_000_000, 9_600_000_000)),
            ("test", Role.evaluation, range(9_600_000_000, 9_900_000_000)),
        )
    },
    **{
        f"vizwiz_{split}": Album("vizwiz", role, ids, (f"{split}/VizWiz_{split}_{{:08d}}.jpg".format,), few, SNAPSHOTS)
        for split, role, ids in (
            ("train", Role.tuning, range(50_000, 60_000)),
            ("val", Role.evaluation, range(60_000, 70_000)),
            ("test", Role.evaluation, range(70_000, 80_000)),
        )
    },
    **{
        f"gqa_{split}": Album("gqa", role, ids, (name.format,), with_hop, share=0.75)
        for split, role, ids, name in (
            ("train", Role.tuning, range(10_000_000, 20_000_000), "images/{}.jpg"),
            ("testdev", Role.evaluation, range(600_000, 700_000), "images/n{}.jpg"),
        )
    },
    **{
        f"scienceqa_{split}": Album("scienceqa", role, ids, (f"images/{split}/{{}}/image.png".format,), few)
        for split, role, ids in (
            ("train", Role.tuning, range(20_000, 50_000)),
            ("val", Role.selection, range(50_000, 70_000)),
            ("test", Role.evaluation, range(70_000, 100_000)),
        )
    },
    **{
        f"visdial_{split}": Album("visdial2018", Role.evaluation, ids, (name.format,), many)
        for split, ids, name in (
            ("val", range(800_000, 820_000), "VisualDialog_val2018/VisualDialog_val2018_{:012d}.jpg"),
            ("test", range(820_000, 840_000), "VisualDialog_test2018/VisualDialog_test2018_{:012d}.jpg"),
        )
    },
}
