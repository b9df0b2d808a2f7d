"""Caption files: COCO's own and Karpathy's. Ids, orders and file names tell nothing about the content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from instructblip.miniature.albums import Picture
from instructblip.miniature.scenes import SIDE
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import LICENCE, Record, info


def write_coco_caption(tree: Path, world: World) -> None:
    splits = {split: world.pictures(f"coco_{split}") for split in ("train", "val", "test")}
    for split in splits:
        world.draw(tree / "coco", f"coco_{split}")
    write_json(tree / "coco/annotations/captions_train2014.json", coco_captions(splits["train"]))
    write_json(tree / "coco/dataset_coco.json", karpathy(splits))


def coco_captions(album: Sequence[Picture]) -> Record:
    """`annotations/captions_*.json`."""
    return {
        "info": info("Rendered scenes in the format of COCO captions"),
        "images": [_coco_image(picture) for picture in album],
        "licenses": [LICENCE | {"id": 1}],
        "annotations": [
            {"image_id": picture.id, "id": _caption_id(picture, k), "caption": caption}
            for picture in album
            for k, caption in enumerate(picture.captions)
        ],
    }


def karpathy(splits: Mapping[str, Sequence[Picture]]) -> Record:
    """`dataset_coco.json`: every split in one file."""
    listed = [(split, picture) for split, album in splits.items() for picture in album]
    images = [_karpathy_image(imgid, split, picture) for imgid, (split, picture) in enumerate(listed)]
    return {"images": images, "dataset": "coco"}


def _coco_image(picture: Picture) -> Record:
    return {
        "license": 1,
        "file_name": picture.file_name,
        "coco_url": picture.url,
        "height": SIDE,
        "width": SIDE,
        "date_captured": "2014-01-01 00:00:00",
        "flickr_url": "",
        "id": picture.id,
    }


def _karpathy_image(imgid: int, split: str, picture: Picture) -> Record:
    sentences = [
        {
            "tokens": re.findall(r"\w+", raw.lower()),
            "raw": raw,
            "imgid": imgid,
            "sentid": _caption_id(picture, k),
        }
        for k, raw in enumerate(picture.captions)
    ]
    return {
        "filepath": picture.folder,
        "sentids": [sentence["sentid"] for sentence in sentences],
        "filename": picture.file_name,
        "imgid": imgid,
        "split": split,
        "sentences": sentences,
        "cocoid": picture.id,
    }


def _caption_id(picture: Picture, k: int) -> int:
    return picture.id * 10 + k
