"""Readers of open questions: one Sample a question, with every annotator's answer."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample, votes
from instructblip.files import read_json

CHOICES = 4  # of every A-OKVQA question
DIRECT_ANSWERS = 10  # of every labelled one


def vqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """The layout of VQAv2 and OKVQA: questions and annotations joined on the question id; a test split has questions
    alone."""
    annotations = _by_question(files[1]) if len(files) > 1 else None
    asked = set()
    for row in read_json(files[0])["questions"]:
        asked.add(row["question_id"])
        truth = {} if annotations is None else annotations.get(row["question_id"])
        if truth is None:
            yield Drop(context.uid(row["question_id"]), "question without annotation")
            continue
        yield vqa_question(row, truth, annotators(truth.get("answers", [])), context)
    for question_id in annotations or ():
        if question_id not in asked:
            yield Drop(context.uid(question_id), "annotation without question")


def vqa_question(
    row: Mapping[str, Any], truth: Mapping[str, Any], answers: tuple[Answer, ...], context: Context
) -> Sample:
    return context.sample(
        row["question_id"],
        MediaRef(context.pool, str(row["image_id"])),
        slots={"question": row["question"]},
        answers=answers,
        group=str(row["image_id"]),
        meta=_present(truth, "answer_type", "question_type"),
    )


def aokvqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """A-OKVQA: direct answers with votes, and the four choices, which may repeat, with the right one's index.

    With `select: [choices]` the right choice is the answer to train on. Rationales stay out: they give it away.
    """
    teaches_choices = "choices" in context.select
    if teaches_choices:
        context = replace(context, form=Form.multiple_choice)
    for row in read_json(files[0]):
        uid, gold = context.uid(row["question_id"]), row.get("correct_choice_idx")
        choices = _texts(row["choices"], CHOICES, f"{uid}: choices")
        answers: tuple[Answer, ...] = ()
        if gold in (None, -1):  # the test split, as issued and in exports
            gold = None
        elif gold not in range(CHOICES):
            yield Drop(uid, "the right choice is none of the four")
            continue
        else:
            direct = _texts(row["direct_answers"], DIRECT_ANSWERS, f"{uid}: direct_answers")
            answers = (Answer(choices[gold]),) if teaches_choices else votes(direct)
        yield context.sample(
            row["question_id"],
            MediaRef(context.pool, str(row["image_id"]), relpath=f"{row['split']}2017/{int(row['image_id']):012d}.jpg"),
            slots={"question": row["question"]},
            answers=answers,
            candidates=Candidates(tuple(choices)),
            gold=gold,
            group=str(row["image_id"]),
            meta=_present(row, "difficult_direct_answer"),
        )


def vizwiz(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """VizWiz: one question a picture, so the picture's name is the id; unanswerable questions are kept."""
    for row in read_json(files[0]):
        meta = _present(row, "answer_type", "answerable")
        yield vizwiz_question(row["image"], row["question"], annotators(row.get("answers", [])), meta, context)


def vizwiz_question(
    name: str, question: str, answers: tuple[Answer, ...], meta: Mapping[str, Any], context: Context
) -> Sample:
    return context.sample(
        name,
        MediaRef(context.pool, Path(name).stem, relpath=f"{context.split}/{name}"),
        slots={"question": question},
        answers=answers,
        group=name,
        meta=meta,
    )


def gqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """GQA: a dictionary by question id, one answer each, with its question types."""
    for question_id, row in read_json(files[0]).items():
        yield gqa_question(question_id, row, context)


def gqa_question(question_id: str, row: Mapping[str, Any], context: Context) -> Sample:
    return context.sample(
        question_id,
        MediaRef(context.pool, row["imageId"], relpath=f"images/{row['imageId']}.jpg"),
        slots={"question": row["question"]},
        answers=(Answer(row["answer"]),) if "answer" in row else (),
        group=row["imageId"],
        meta=_present(row, "types", "fullAnswer"),
    )


def _by_question(path: Path) -> dict[int, Mapping[str, Any]]:
    """Annotations by question id. Raises ValueError for an id that has two, of which one would be lost."""
    rows = read_json(path)["annotations"]
    found = {row["question_id"]: row for row in rows}
    if len(found) < len(rows):
        raise ValueError(f"{path} has {len(rows):,} annotations for {len(found):,} question ids; download it again")
    return found


def annotators(given: Iterable[Mapping[str, str]]) -> tuple[Answer, ...]:
    """Votes with confidences. OKVQA has two forms of an answer: the raw one to say, the stemmed one to score by."""
    marks: dict[tuple[str, str | None], list[str]] = {}
    for row in given:
        forms = (row["raw_answer"], row["answer"]) if "raw_answer" in row else (row["answer"], None)
        marks.setdefault(forms, []).append(row["answer_confidence"])
    return tuple(Answer(text, len(each), tuple(each), scored) for (text, scored), each in marks.items())


def _texts(value: Any, count: int, what: str) -> list[str]:
    """A list of `count` texts; exports write one as its Python text, which is parsed and never run."""
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{what} is no list ({error})") from error
    if not isinstance(found, list) or len(found) != count or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{what} should be {count} texts, it is {found!r}; take the official file")
    return found


def _present(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}
