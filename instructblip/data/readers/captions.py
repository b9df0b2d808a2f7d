"""Readers of caption files: one Sample a picture, with all its captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from instructblip.data.readers.base import Context, Drop, coco
from instructblip.data.sample import Sample, votes
from instructblip.files import read_json


def coco_captions(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """COCO's own annotation file: `images` and `annotations` joined on the image id, one Sample an image."""
    source = read_json(files[0])
    captions: dict[int, list[str]] = {}
    for row in source["annotations"]:
        captions.setdefault(row["image_id"], []).append(row["caption"])
    for image in source["images"]:
        if image["id"] not in captions:
            yield Drop(context.uid(image["id"]), "no caption")
            continue
        answers = votes(captions.pop(image["id"]))
        yield context.sample(image["id"], coco(context, image["id"], image["file_name"]), answers=answers)
    for image_id in captions:
        yield Drop(context.uid(image_id), "captions of an image that is not listed")


def karpathy_captions(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Karpathy's `dataset_*.json`: one row an image, five sentences, the split named in the row."""
    for row in read_json(files[0])["images"]:
        if row["split"] in context.select:
            relpath = f"{row['filepath']}/{row['filename']}"
            answers = votes([sentence["raw"] for sentence in row["sentences"]])
            yield context.sample(row["cocoid"], coco(context, row["cocoid"], relpath), answers=answers)
