"""Readers of caption files: one Sample a picture, with all its captions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from instructblip.data.readers.base import Context, Drop, coco
from instructblip.data.readers.scene_text import NOT_READ, rosetta_tokens
from instructblip.data.sample import Answer, MediaRef, Sample, votes
from instructblip.files import read_json, read_text

TOKEN_LINE = re.compile(r"(\d+)\.jpg#\d\t(.+)")
UNLABELLED = "unlabelled"  # a split's `select`: the file has no captions, and none are missed


def coco_captions(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """COCO's own annotation file: `images` and `annotations` joined on the image id, one Sample an image."""

    def sample(image: dict[str, Any], answers: tuple[Answer, ...]) -> Sample:
        return context.sample(image["id"], coco(context, image["id"], image["file_name"]), answers=answers)

    return _joined(read_json(files[0]), context, sample)


def nocaps(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """NoCaps: COCO's layout with Open Images names, ten captions an image and the domain it counts in."""

    def sample(image: dict[str, Any], answers: tuple[Answer, ...]) -> Sample:
        picture = MediaRef(context.pool, image["open_images_id"], relpath=image["file_name"])
        meta = {"domain": image["domain"]} if "domain" in image else {}  # the test file has none
        return context.sample(image["id"], picture, answers=answers, meta=meta)

    source = read_json(files[0])
    if UNLABELLED in context.select:
        return (sample(image, ()) for image in source["images"])
    return _joined(source, context, sample)


def karpathy_captions(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Karpathy's `dataset_coco.json`: one row an image, its sentences and its split in the row."""
    for row, answers in _karpathy(files[0], context):
        picture = coco(context, row["cocoid"], f"{row['filepath']}/{row['filename']}")
        yield context.sample(row["cocoid"], picture, answers=answers)


def karpathy_flickr30k(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Karpathy's `dataset_flickr30k.json`: as that of COCO, but the file name is all that names the picture."""
    for row, answers in _karpathy(files[0], context):
        if not (named := re.fullmatch(r"(\d+)\.jpg", row["filename"])):
            raise ValueError(f"{row['filename']!r} is not a Flickr30K file name; {files[0]} holds another dataset")
        yield context.sample(named[1], MediaRef(context.pool, named[1], relpath=row["filename"]), answers=answers)


def flickr30k_tokens(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Flickr30K's own `results_20130124.token`: `<id>.jpg#<n>`, a tab and a caption a line, no splits."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(files[0]).removesuffix("\n").split("\n"), start=1):
        if found := TOKEN_LINE.fullmatch(line.removesuffix("\r")):
            captions.setdefault(found[1], []).append(found[2])
        else:
            yield Drop(context.uid(f"line-{number}"), "not a line of <id>.jpg#<n>, tab, caption")
    for key, texts in captions.items():
        yield context.sample(key, MediaRef(context.pool, key, relpath=f"{key}.jpg"), answers=votes(texts))


def textcaps(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """TextCaps, a row a caption, and the OCR tokens of its pictures from TextVQA's Rosetta file of the same split.

    The rows' `image_path` is not used: it says `train/` where the pictures lie in `train_images/`.
    """
    tokens = rosetta_tokens(files[1])
    captions: dict[str, list[str]] = {}
    for row in read_json(files[0])["data"]:
        texts = captions.setdefault(row["image_id"], [])
        if UNLABELLED not in context.select:
            texts.append(row["caption_str"])
    for key, texts in captions.items():
        if key not in tokens:
            yield Drop(context.uid(key), NOT_READ)
            continue
        yield context.sample(key, MediaRef(context.pool, key), slots={"ocr": tokens[key]}, answers=votes(texts))


def _joined(
    source: dict[str, Any], context: Context, sample: Callable[[dict[str, Any], tuple[Answer, ...]], Sample]
) -> Iterator[Sample | Drop]:
    """COCO's `images` and `annotations` joined on the image id."""
    captions: dict[int, list[str]] = {}
    for row in source["annotations"]:
        captions.setdefault(row["image_id"], []).append(row["caption"])
    for image in source["images"]:
        if image["id"] in captions:
            yield sample(image, votes(captions.pop(image["id"])))
        else:
            yield Drop(context.uid(image["id"]), "no caption")
    for image_id in captions:
        yield Drop(context.uid(image_id), "captions of an image that is not listed")


def _karpathy(file: Path, context: Context) -> Iterator[tuple[dict[str, Any], tuple[Answer, ...]]]:
    """The rows of the selected splits with their captions."""
    for row in read_json(file)["images"]:
        if row["split"] in context.select:
            yield row, votes([sentence["raw"] for sentence in row["sentences"]])
