"""Rows of mirrors on the Hugging Face hub to the Samples the official files give: the same uids, keys and fields.

Where a mirror lacks what only filters or refines (NoCaps' domain, VizWiz' confidences), the Sample lacks it as well;
one that lost what a Sample needs has no reader here, and its recipe says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.data.readers.base import Context, Drop, coco
from instructblip.data.readers.questions import annotators, gqa_question, vizwiz_question, vqa_question
from instructblip.data.readers.scene_text import NOT_READ, book_questions, rosetta_tokens, textvqa_question
from instructblip.data.sample import MediaRef, Sample, votes

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
    tokens = rosetta_tokens(beside[0])
    for row in rows:
        key = row["image_id"]
        if key not in tokens:
            yield Drop(context.uid(key), NOT_READ), {}
            continue
        picture = MediaRef(context.pool, key)
        answers = votes(list(row["caption_str"] or []))
        yield context.sample(key, picture, slots={"ocr": tokens[key]}, answers=answers), _brought(picture, row)


def vqav2(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/VQAv2 with pictures, pminervini/VQAv2 without: question and annotation in one row."""
    for row in rows:
        sample = vqa_question(row, row, annotators(_records(row["answers"])), context)
        yield sample, _brought(sample.media[0], row)


def okvqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/OK-VQA: one of the two official forms of each answer, no image id, which the question id begins with."""
    for row in rows:
        named = {**row, "image_id": int(row["question_id"]) // 10}
        sample = vqa_question(named, row, votes(list(row["answers"])), context)
        yield sample, _brought(sample.media[0], row)


def vizwiz(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/VizWiz-VQA: the question id is the picture's file name; the annotators' confidences are lost."""
    for row in rows:
        answers, meta = votes(list(row["answers"] or [])), {"answer_type": row["category"]} if row["category"] else {}
        sample = vizwiz_question(row["question_id"], row["question"], answers, meta, context)
        yield sample, _brought(sample.media[0], row)


def textvqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/textvqa, whose rows hold Rosetta's tokens."""
    for row in rows:
        sample = textvqa_question(row, row["ocr_tokens"], context)
        yield sample, _brought(sample.media[0], row)


def ocrvqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """howard-hou/OCR-VQA, a row a book, with OCR tokens that the official file lacks; its ids are text."""
    for row in rows:
        for item in book_questions(row["image_id"], row, row["image_url"], row["ocr_tokens"], context):
            yield item, {} if isinstance(item, Drop) else _brought(item.media[0], row)


def gqa(rows: Iterable[Row], context: Context, _: Sequence[Path]) -> Iterator[Entry]:
    """lmms-lab/GQA's instructions; their pictures are a config of their own."""
    for row in rows:
        yield gqa_question(row["id"], row, context), {}


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
