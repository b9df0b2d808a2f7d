"""Predictions in the form an evaluation server takes, for splits whose answers only the server knows.

Each form is that of the challenge's own page or code; a recipe names it (`evaluation.submission`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instructblip.data.sample import Sample
from instructblip.evaluation.measures import Pair, text_of
from instructblip.evaluation.predictions import Prediction
from instructblip.files import write_json
from instructblip.names import lookup

Form = Callable[[Sequence[Pair]], Any]  # what is written as JSON


def write_submission(path: Path, name: str, pairs: Sequence[Pair]) -> None:
    """Writes the file to upload. Raises ValueError for an unknown form and for predictions it cannot hold."""
    write_json(path, lookup(name, SUBMISSIONS, "submission format")(pairs))


def _vqa(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """GT-Vision-Lab/VQA `Results`: VQAv2's and TextVQA's challenges on EvalAI, every question of the split."""
    return [{"question_id": int(_source_id(s)), "answer": text_of(p, s)} for p, s in pairs]


def _vizwiz(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """vizwiz.org, VQA task: the picture's file name is the question's id."""
    return [{"image": _source_id(s), "answer": text_of(p, s)} for p, s in pairs]


def _aokvqa(pairs: Sequence[Pair]) -> dict[str, dict[str, str]]:
    """allenai/aokvqa README; the leaderboard takes both tasks in one file, here each writes its own key."""
    return {_source_id(s): {_aokvqa_task(p): text_of(p, s)} for p, s in pairs}


def _gqa(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    """GQA's page on its EvalAI challenge."""
    return [{"questionId": _source_id(s), "prediction": text_of(p, s)} for p, s in pairs]


def _nocaps(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """nocaps.org: COCO's result format, with the image's number in the annotation file."""
    return [{"image_id": int(_source_id(s)), "caption": text_of(p, s)} for p, s in pairs]


def _textcaps(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """textvqa.org/textcaps: as COCO's, but an Open Images id."""
    return [{"image_id": _source_id(s), "caption": text_of(p, s)} for p, s in pairs]


def _visdial(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """visualdialog.org/challenge: the rank of each option, in the options' order; the first of equals ranks first."""
    return [{"image_id": int(s.group or ""), "round_id": s.meta["round"], "ranks": _ranks(p)} for p, s in pairs]


SUBMISSIONS: dict[str, Form] = {
    "vqa": _vqa,
    "vizwiz": _vizwiz,
    "aokvqa": _aokvqa,
    "gqa": _gqa,
    "nocaps": _nocaps,
    "textcaps": _textcaps,
    "visdial": _visdial,
}


def _aokvqa_task(prediction: Prediction) -> str:
    return "direct_answer" if prediction.scores is None else "multiple_choice"


def _ranks(prediction: Prediction) -> list[int]:
    scores = prediction.scores or []
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    places = {index: rank for rank, index in enumerate(order, start=1)}
    return [places[index] for index in range(len(scores))]


def _source_id(sample: Sample) -> str:
    return sample.uid.removeprefix(f"{sample.dataset}/{sample.split}/")
