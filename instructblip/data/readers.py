"""Official annotation files to Samples: one function per raw layout, no wording, nothing normalised.

A reader yields every row: a Sample, or a Drop that says why the row is none. Files come in the order of the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.data.sample import Candidates, Form, MediaRef, Sample, votes
from instructblip.files import read_json, read_jsonl
from instructblip.names import lookup
from instructblip.recipes import Recipe


@dataclass(frozen=True)
class Drop:
    """A source row that became no Sample."""

    uid: str
    reason: str


@dataclass(frozen=True)
class Context:
    """What a reader must know beside its files."""

    dataset: str
    split: str
    pool: str
    form: Form
    select: tuple[str, ...]

    def uid(self, source_id: Any) -> str:
        return f"{self.dataset}/{self.split}/{source_id}"

    def sample(self, source_id: Any, media: MediaRef, **fields: Any) -> Sample:
        return Sample(self.uid(source_id), self.dataset, self.split, self.form, (media,), **fields)


Reader = Callable[[Sequence[Path], Context], Iterator[Sample | Drop]]


def read(recipe: Recipe, split: str, raw: Path) -> Iterator[Sample | Drop]:
    """Every row of a split. Raises ValueError naming a missing file and where it comes from."""
    facts = recipe.split(split)
    files = [raw / recipe.source / name for name in facts.files]
    if absent := [str(path) for path in files if not path.is_file()]:
        raise ValueError(
            f"{recipe.name}/{split}: missing {', '.join(absent)}; get it from {' '.join(recipe.urls)} "
            f"and put it there, or set paths.raw"
        )
    reader = lookup(facts.reader, READERS, "reader")
    try:
        yield from reader(files, Context(recipe.name, split, recipe.pool, recipe.form, tuple(facts.select)))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{recipe.name}/{split}: {files[0]} is not in the layout reader {facts.reader!r} knows "
            f"({type(error).__name__}: {error})"
        ) from error


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
        yield context.sample(image["id"], _coco(context, image["id"], image["file_name"]), answers=answers)
    for image_id in captions:
        yield Drop(context.uid(image_id), "captions of an image that is not listed")


def karpathy_captions(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Karpathy's `dataset_*.json`: one row an image, five sentences, the split named in the row."""
    for row in read_json(files[0])["images"]:
        if row["split"] in context.select:
            relpath = f"{row['filepath']}/{row['filename']}"
            answers = votes([sentence["raw"] for sentence in row["sentences"]])
            yield context.sample(row["cocoid"], _coco(context, row["cocoid"], relpath), answers=answers)


def vqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """The VQA two-file layout: questions and annotations joined on the question id."""
    annotations = {row["question_id"]: row for row in read_json(files[1])["annotations"]}
    for row in read_json(files[0])["questions"]:
        truth = annotations.pop(row["question_id"], None)
        if truth is None:
            yield Drop(context.uid(row["question_id"]), "question without annotation")
            continue
        answers = votes(
            [answer["answer"] for answer in truth["answers"]],
            [answer["answer_confidence"] for answer in truth["answers"]],
        )
        yield context.sample(
            row["question_id"],
            MediaRef(context.pool, str(row["image_id"])),
            slots={"question": row["question"]},
            answers=answers,
            group=str(row["image_id"]),
            meta={name: truth[name] for name in ("answer_type", "question_type")},
        )
    for question_id in annotations:
        yield Drop(context.uid(question_id), "annotation without question")


def vsr(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """VSR's JSON lines: no row id, so the line number is the id; 2017 file names."""
    for number, row in enumerate(read_jsonl(files[0])):
        relpath = "/".join(row["image_link"].split("/")[-2:])
        yield context.sample(
            number,
            _coco(context, image_id(row["image"]), relpath),
            slots={"statement": row["caption"]},
            candidates=Candidates(vocab="truefalse"),
            gold=int(row["label"]),
            group=str(image_id(row["image"])),
            meta={"relation": row["relation"]},
        )


READERS: dict[str, Reader] = {
    "coco_captions": coco_captions,
    "karpathy_captions": karpathy_captions,
    "vqa": vqa,
    "vsr": vsr,
}


def image_id(file_name: str) -> int:
    """COCO's integer id from a 2014 or 2017 file name."""
    found = re.fullmatch(r"(?:COCO_\w+_)?(\d{12})\.jpg", file_name)
    if not found:
        raise ValueError(f"{file_name!r} is not a COCO file name")
    return int(found.group(1))


def _coco(context: Context, key: int, file_name: str) -> MediaRef:
    """2014 names carry their folder: COCO_train2014_000000000009.jpg lies in train2014/."""
    folder = re.match(r"COCO_(\w+)_\d", file_name)
    return MediaRef(context.pool, str(key), relpath=f"{folder.group(1)}/{file_name}" if folder else file_name)
