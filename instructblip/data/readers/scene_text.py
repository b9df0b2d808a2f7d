"""Readers of questions about printed words: the picture's OCR tokens stand beside each question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import Answer, MediaRef, Sample, votes
from instructblip.files import read_json

NOT_READ = "picture is not in the OCR file"


def textvqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """TextVQA 0.5.1 and Rosetta's tokens of the same split, joined on the image id; questions share pictures."""
    tokens = rosetta_tokens(files[1])
    for row in read_json(files[0])["data"]:
        if row["image_id"] in tokens:
            yield textvqa_question(row, tokens[row["image_id"]], context)
        else:
            yield Drop(context.uid(row["question_id"]), NOT_READ)


def textvqa_question(row: Mapping[str, Any], tokens: Sequence[str], context: Context) -> Sample:
    """Of an official row, or a mirror's."""
    image = row["image_id"]
    folder = "test_images" if context.split == "test" else "train_images"  # val lies with train
    return context.sample(
        row["question_id"],
        MediaRef(context.pool, image, relpath=f"{folder}/{image}.jpg"),
        slots={"question": row["question"], "ocr": tuple(tokens)},
        answers=votes(list(row.get("answers") or ())),
        group=image,
    )


def rosetta_tokens(path: Path) -> dict[str, tuple[str, ...]]:
    """OCR tokens by image id, all of them and in file order, which decides the 30 a prompt shows."""
    return {row["image_id"]: tuple(row["ocr_tokens"]) for row in read_json(path)["data"]}


def ocrvqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """OCR-VQA: a book with about five questions, of the splits 1, 2, 3 that `select` names; one Sample a question.

    OCR tokens are not official: an optional second file holds {book id: [word, ...]}. Ids are text ("0123", "012X").
    """
    tokens = words_by_book(files[1]) if len(files) > 1 else None
    for book, row in read_json(files[0]).items():
        if str(row["split"]) not in context.select:
            continue
        yield from book_questions(book, row, row["imageURL"], None if tokens is None else tokens.get(book, ()), context)


def book_questions(
    book: str, row: Mapping[str, Any], url: str, tokens: Sequence[str] | None, context: Context
) -> Iterator[Sample | Drop]:
    """Of an official row, or a mirror's."""
    asked, said = list(row["questions"]), list(row["answers"])
    if len(asked) != len(said):
        yield Drop(context.uid(book), f"{len(asked)} questions for {len(said)} answers")
        return
    media = MediaRef(context.pool, book, relpath=book + PurePosixPath(urlparse(url).path).suffix)
    for number, (question, answer) in enumerate(zip(asked, said, strict=True)):
        slots = {"question": question} | ({} if tokens is None else {"ocr": tuple(tokens)})
        yield context.sample(f"{book}#{number}", media, slots=slots, answers=(Answer(answer),), group=book)


def words_by_book(path: Path) -> dict[str, tuple[str, ...]]:
    """A user's own OCR file. Raises ValueError where the words are one text, which would be read letter by letter."""
    found = read_json(path)
    if text := [book for book, words in found.items() if not isinstance(words, list)]:
        raise ValueError(f"{path}: {len(text):,} books have no list of words, the first is {text[0]!r}")
    return {book: tuple(words) for book, words in found.items()}
