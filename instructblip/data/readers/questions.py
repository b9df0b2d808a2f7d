"""Readers of open questions: one Sample a question, with every annotator's answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import MediaRef, Sample, votes
from instructblip.files import read_json


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
