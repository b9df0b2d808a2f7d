"""Rows of mirrors on the Hugging Face hub to the Samples the official files give: the same uids, keys and fields.

Where a mirror lacks what only filters or refines (NoCaps' domain, VizWiz' confidences), the Sample lacks it as well;
one that lost what a Sample needs has no reader here, and its recipe says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from instructblip.data.readers.base import Context, Drop, coco
from instructblip.data.sample import Answer, MediaRef, Sample, votes
from instructblip.files import read_json

Row = Mapping[str, Any]
Pictures = Mapping[str, bytes]  # media key -> file content; empty where the mirror holds text alone
Entry = tuple[Sample | Drop, Pictures]
MirrorReader = Callable[[Iterable[Row], Context, Sequence[Path]], Iterator[Entry]]  # rows, context, files beside


@dataclass(frozen=True)
class Layout:
    """A reader of rows, the columns it needs, and those it takes where they are there."""

    read: MirrorReader
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ("image",)


def karpathy(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """yerevann/coco-karpathy: Karpathy's rows, captions as plain texts, no pictures."""
    for row in rows:
        picture = coco(context, row["cocoid"], f"{row['filepath']}/{row['filename']}")
        yield context.sample(row["cocoid"], picture, answers=votes(list(row["sentences"]))), {}


def nocaps(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/NoCaps; the domain of a picture is lost."""
    for row in rows:
        picture = MediaRef(context.pool, row["image_open_images_id"], relpath=row["image_file_name"])
        answers = votes(list(row["annotations_captions"]))
        yield context.sample(row["image_id"], picture, answers=answers), _brought(picture, row)


def flickr30k(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """umaru97/flickr30k_train_val_test: Karpathy's splits with pictures."""
    for row in rows:
        key = Path(row["filename"]).stem
        picture = MediaRef(context.pool, key, relpath=row["filename"])
        yield context.sample(key, picture, answers=votes(list(row["caption"]))), _brought(picture, row)


def textcaps(rows: Iterable[Row], context: Context, beside: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/TextCaps, a row a picture; the OCR tokens come from the official Rosetta file beside it."""
    tokens = {row["image_id"]: tuple(row["ocr_tokens"]) for row in read_json(beside[0])["data"]}
    for row in rows:
        key = row["image_id"]
        if key not in tokens:
            yield Drop(context.uid(key), "picture is not in the OCR file"), {}
            continue
        picture = MediaRef(context.pool, key)
        answers = votes(list(row["caption_str"] or []))
        yield context.sample(key, picture, slots={"ocr": tokens[key]}, answers=answers), _brought(picture, row)


def vqav2(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/VQAv2 with pictures, pminervini/VQAv2 without: question and annotation in one row."""
    for row in rows:
        picture = MediaRef(context.pool, str(row["image_id"]))
        given = _records(row["answers"])
        sample = context.sample(
            row["question_id"],
            picture,
            slots={"question": row["question"]},
            answers=votes([each["answer"] for each in given], [each["answer_confidence"] for each in given]),
            group=str(row["image_id"]),
            meta={name: row[name] for name in ("answer_type", "question_type")},
        )
        yield sample, _brought(picture, row)


def okvqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/OK-VQA: one of the two official forms of each answer, no image id, which the question id begins with."""
    for row in rows:
        image = str(int(row["question_id"]) // 10)
        picture = MediaRef(context.pool, image)
        sample = context.sample(
            row["question_id"],
            picture,
            slots={"question": row["question"]},
            answers=votes(list(row["answers"])),
            group=image,
            meta={name: row[name] for name in ("answer_type", "question_type")},
        )
        yield sample, _brought(picture, row)


def vizwiz(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/VizWiz-VQA: the question id is the picture's file name; the annotators' confidences are lost."""
    for row in rows:
        name = row["question_id"]
        picture = MediaRef(context.pool, Path(name).stem, relpath=f"{context.split}/{name}")
        sample = context.sample(
            name,
            picture,
            slots={"question": row["question"]},
            answers=votes(list(row["answers"] or [])),
            group=name,
            meta={"answer_type": row["category"]} if row["category"] else {},
        )
        yield sample, _brought(picture, row)


def textvqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/textvqa, whose rows hold Rosetta's tokens."""
    folder = "test_images" if context.split == "test" else "train_images"  # val lies with train
    for row in rows:
        image = row["image_id"]
        picture = MediaRef(context.pool, image, relpath=f"{folder}/{image}.jpg")
        sample = context.sample(
            row["question_id"],
            picture,
            slots={"question": row["question"], "ocr": tuple(row["ocr_tokens"])},
            answers=votes(list(row["answers"] or [])),
            group=image,
            meta={"ocr_listed": True},
        )
        yield sample, _brought(picture, row)


def ocrvqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """howard-hou/OCR-VQA, a row a book, with OCR tokens that the official file lacks; its ids are text."""
    for row in rows:
        book, asked, said = row["image_id"], list(row["questions"]), list(row["answers"])
        if len(asked) != len(said):
            yield Drop(context.uid(book), f"{len(asked)} questions for {len(said)} answers"), {}
            continue
        picture = MediaRef(context.pool, book, relpath=book + PurePosixPath(urlparse(row["image_url"]).path).suffix)
        for number, (question, answer) in enumerate(zip(asked, said, strict=True)):
            slots = {"question": question, "ocr": tuple(row["ocr_tokens"])}
            sample = context.sample(f"{book}#{number}", picture, slots=slots, answers=(Answer(answer),), group=book)
            yield sample, _brought(picture, row)


def gqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/GQA's instructions; their pictures are a config of their own."""
    for row in rows:
        image = row["imageId"]
        sample = context.sample(
            row["id"],
            MediaRef(context.pool, image, relpath=f"images/{image}.jpg"),
            slots={"question": row["question"]},
            answers=(Answer(row["answer"]),),
            group=image,
            meta={name: row[name] for name in ("types", "fullAnswer") if name in row},
        )
        yield sample, {}


def _brought(picture: MediaRef, row: Row) -> Pictures:
    """The row's picture; none where the mirror's cell is empty or there is no such column."""
    cell = row.get("image")
    return {picture.key: cell["bytes"]} if cell and cell.get("bytes") else {}


def _records(value: Any) -> list[dict[str, Any]]:
    """A list of records, which some versions of a table keep as one record of lists."""
    if isinstance(value, Mapping):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return list(value)


MIRRORS: dict[str, Layout] = {
    "flickr30k": Layout(flickr30k, ("filename", "caption")),
    "gqa": Layout(gqa, ("id", "imageId", "question", "answer", "fullAnswer"), optional=("types",)),
    "karpathy": Layout(karpathy, ("cocoid", "filepath", "filename", "sentences")),
    "nocaps": Layout(nocaps, ("image_id", "image_open_images_id", "image_file_name", "annotations_captions")),
    "ocrvqa": Layout(ocrvqa, ("image_id", "image_url", "questions", "answers", "ocr_tokens")),
    "okvqa": Layout(okvqa, ("question_id", "question", "answers", "answer_type", "question_type")),
    "textcaps": Layout(textcaps, ("image_id", "caption_str")),
    "textvqa": Layout(textvqa, ("question_id", "image_id", "question", "answers", "ocr_tokens")),
    "vizwiz": Layout(vizwiz, ("question_id", "question", "answers", "category")),
    "vqav2": Layout(vqav2, ("question_id", "image_id", "question", "answers", "answer_type", "question_type")),
}
PICTURES = Layout(lambda rows, context, _: iter(()), ("id", "image"), optional=())  # a config of pictures alone
