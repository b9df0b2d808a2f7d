"""Question files. Votes follow from the answer; ids and orders are drawn apart from it and tell nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from instructblip.miniature.albums import Picture
from instructblip.miniature.programs import PROGRAMS, SYNONYMS, Question, least_asked
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import LICENCE, Record, info

QUESTION_TYPES = {  # of VQAv2, and the programs it asks
    "colour-of": "what color is the",
    "what-at": "what",
    "where": "where is the",
    "exists": "is there a",
}
ANNOTATORS = 10
SYNONYM_RATE = 0.08  # of annotators who use another word than the rest


def write_vqav2(tree: Path, world: World) -> None:
    asked = {
        "train2014": ("coco_train", world.sizes["vqav2_train"]),
        "val2014": ("coco_test", world.sizes["vqav2_test"]),
    }
    for subset, (album, per_picture) in asked.items():
        rng = world.rng(f"vqav2/{subset}")
        questions, annotations = vqav2(subset, world.pictures(album), per_picture, rng)
        write_json(tree / f"vqav2/v2_OpenEnded_mscoco_{subset}_questions.json", questions)
        write_json(tree / f"vqav2/v2_mscoco_{subset}_annotations.json", annotations)


def vqav2(subset: str, album: Sequence[Picture], per_picture: int, rng: random.Random) -> tuple[Record, Record]:
    """`v2_OpenEnded_mscoco_*_questions.json` and `v2_mscoco_*_annotations.json` of one subset."""
    shared = {
        "info": info("Rendered scenes in the format of VQA v2.0"),
        "data_type": "mscoco",
        "data_subtype": subset,
        "license": LICENCE,
    }
    asked = ask(album, per_picture, rng)
    questions = [
        {"image_id": picture.id, "question": question.text, "question_id": picture.id * 1000 + k}
        for picture, k, _, question in asked
    ]
    annotations = [_annotation(*item, rng) for item in asked]
    return shared | {"task_type": "Open-Ended", "questions": questions}, shared | {"annotations": annotations}


def ask(album: Sequence[Picture], per_picture: int, rng: random.Random) -> list[tuple[Picture, int, str, Question]]:
    """(picture, k, program, question) for `per_picture` programs of each picture, taken in turn.

    A program that has nothing to ask of a scene leaves its question out.
    """
    names = tuple(QUESTION_TYPES)
    asked: dict[str, Counter[object]] = {name: Counter() for name in names}
    questions = []
    for i, picture in enumerate(album):
        for k in range(per_picture):
            name = names[(i + k) % len(names)]
            if candidates := PROGRAMS[name](picture.scene):
                questions.append((picture, k, name, least_asked(candidates, asked[name], rng)))
    return questions


def _annotation(picture: Picture, k: int, program: str, question: Question, rng: random.Random) -> Record:
    return {
        "question_type": QUESTION_TYPES[program],
        "multiple_choice_answer": question.answer,
        "answers": [_annotator(answer_id, question.answer, rng) for answer_id in range(1, ANNOTATORS + 1)],
        "image_id": picture.id,
        "answer_type": "yes/no" if program == "exists" else "other",
        "question_id": picture.id * 1000 + k,
    }


def _annotator(answer_id: int, answer: str, rng: random.Random) -> Record:
    deviates = rng.random() < SYNONYM_RATE and answer in SYNONYMS
    return {
        "answer": SYNONYMS[answer] if deviates else answer,
        "answer_confidence": "maybe" if deviates else "yes",
        "answer_id": answer_id,
    }
