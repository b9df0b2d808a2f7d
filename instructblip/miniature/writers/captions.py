"""Caption files: COCO's own, Karpathy's of COCO and Flickr30K, NoCaps.

Ids, orders and file names tell nothing about the content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from instructblip.miniature.albums import Picture
from instructblip.miniature.programs import STRIPED, captions
from instructblip.miniature.scenes import SIDE
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import LICENCE, Record, info


class Captioned(NamedTuple):
    picture: Picture
    captions: list[str]


def write_coco_caption(tree: Path, world: World) -> None:
    splits = {}
    for split in ("train", "restval", "val", "test"):
        album = world.pictures(f"coco_{split}")
        rng = world.rng(f"coco_caption/{split}")
        splits[split] = [Captioned(picture, captions(picture.scene, rng)) for picture in album]
        world.draw(tree, f"coco_{split}")
    write_json(tree / "coco/annotations/captions_train2014.json", coco_captions(splits["train"]))
    write_json(tree / "coco/dataset_coco.json", karpathy(splits, "coco"))


def coco_captions(album: Sequence[Captioned]) -> Record:
    """`annotations/captions_*.json`."""
    return {
        "info": info("Rendered scenes in the format of COCO captions"),
        "images": [_coco_image(picture) for picture, _ in album],
        "licenses": [LICENCE | {"id": 1}],
        "annotations": [
            {"image_id": picture.id, "id": _caption_id(picture, k), "caption": caption}
            for picture, said in album
            for k, caption in enumerate(said)
        ],
    }


def karpathy(splits: Mapping[str, Sequence[Captioned]], dataset: str) -> Record:
    """`dataset_coco.json` and `dataset_flickr30k.json`: every split in one file."""
    listed = [(split, item) for split, album in splits.items() for item in album]
    images = [_karpathy_image(imgid, split, item) for imgid, (split, item) in enumerate(listed)]
    if dataset == "coco":
        for image, (_, (picture, _)) in zip(images, listed, strict=True):
            image |= {"filepath": picture.folder, "cocoid": picture.id}
    return {"images": images, "dataset": dataset}


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


def _karpathy_image(imgid: int, split: str, item: Captioned) -> Record:
    sentences = [
        {
            "tokens": re.findall(r"\w+", raw.lower()),
            "raw": raw,
            "imgid": imgid,
            "sentid": _caption_id(item.picture, k),
        }
        for k, raw in enumerate(item.captions)
    ]
    return {
        "sentids": [sentence["sentid"] for sentence in sentences],
        "filename": item.picture.file_name,
        "imgid": imgid,
        "split": split,
        "sentences": sentences,
    }


def _caption_id(picture: Picture, k: int) -> int:
    return picture.id * 10 + k


def write_nocaps(tree: Path, world: World) -> None:
    """The validation file, and that of the test split, whose captions and domains a server has."""
    rng = world.rng("nocaps/val")
    album = [Captioned(picture, captions(picture.scene, rng, 10)) for picture in world.pictures("nocaps_val")]
    for split in ("val", "test"):
        world.draw(tree, f"nocaps_{split}")
    write_json(tree / "nocaps/nocaps_val_4500_captions.json", nocaps(album))
    hidden = nocaps([Captioned(picture, []) for picture in world.pictures("nocaps_test")])
    hidden["images"] = [{key: image[key] for key in image if key != "domain"} for image in hidden["images"]]
    del hidden["annotations"]
    write_json(tree / "nocaps/nocaps_test_image_info.json", hidden)


def nocaps(album: Sequence[Captioned]) -> Record:
    """`nocaps_val_4500_captions.json`: COCO's layout, Open Images names, ten captions, the domain of each picture."""
    return {
        "licenses": [LICENCE | {"id": 0}],
        "info": info("Rendered scenes in the format of NoCaps"),
        "images": [_nocaps_image(number, picture) for number, (picture, _) in enumerate(album)],
        "annotations": [
            {"image_id": number, "id": 10 * number + k, "caption": caption}
            for number, (_, said) in enumerate(album)
            for k, caption in enumerate(said)
        ],
    }


def _nocaps_image(number: int, picture: Picture) -> Record:
    return {
        "height": SIDE,
        "width": SIDE,
        "file_name": picture.file_name,
        "coco_url": f"https://s3.amazonaws.com/nocaps/val/{picture.file_name}",
        "open_images_id": picture.key,
        "id": number,
        "license": 0,
        "date_captured": "2018-11-06 00:00:00",
        "domain": picture.scene.domain.value,
    }


def write_flickr30k(tree: Path, world: World) -> None:
    splits = {}
    for split in ("train", "val", "test"):
        rng = world.rng(f"flickr30k/{split}")
        album = world.pictures(f"flickr30k_{split}")
        splits[split] = [Captioned(picture, captions(picture.scene, rng, grammar=STRIPED)) for picture in album]
        world.draw(tree, f"flickr30k_{split}")
    write_json(tree / "flickr30k/dataset_flickr30k.json", karpathy(splits, "flickr30k"))
    everything = sorted((item for album in splits.values() for item in album), key=lambda item: item.picture.id)
    lines = [
        f"{item.picture.file_name}#{k}\t{caption}\n" for item in everything for k, caption in enumerate(item.captions)
    ]
    (tree / "flickr30k/results_20130124.token").write_text("".join(lines), encoding="utf-8")
