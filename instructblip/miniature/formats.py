"""The records of the official files, key by key, made from pictures of the miniature.

Votes follow from the answer; ids, orders and file names are drawn apart from it and tell nothing.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from instructblip.miniature.albums import Picture
from instructblip.miniature.programs import (
    PROGRAMS,
    SYNONYMS,
    Question,
    Statement,
    least_asked,
    statements,
)
from instructblip.miniature.scenes import SIDE

Record = dict[str, Any]

LICENCE = {"url": "http://creativecommons.org/publicdomain/zero/1.0/", "name": "CC0 1.0 Universal"}
QUESTION_TYPES = {  # of VQAv2, and the programs it asks
    "colour-of": "what color is the",
    "what-at": "what",
    "where": "where is the",
    "exists": "is there a",
}
ANNOTATORS = 10
SYNONYM_RATE = 0.08  # of annotators who use another word than the rest


# --- COCO Caption -----------------------------------------------------------------------------------------


def coco_captions(album: Sequence[Picture]) -> Record:
    """`annotations/captions_*.json`."""
    return {
        "info": _info("Rendered scenes in the format of COCO captions"),
        "images": [_coco_image(picture) for picture in album],
        "licenses": [LICENCE | {"id": 1}],
        "annotations": [
            {"image_id": picture.id, "id": _caption_id(picture, k), "caption": caption}
            for picture in album
            for k, caption in enumerate(picture.captions)
        ],
    }


def karpathy(splits: Mapping[str, Sequence[Picture]]) -> Record:
    """`dataset_coco.json`: every split in one file."""
    listed = [(split, picture) for split, album in splits.items() for picture in album]
    images = [_karpathy_image(imgid, split, picture) for imgid, (split, picture) in enumerate(listed)]
    return {"images": images, "dataset": "coco"}


def _info(description: str) -> Record:
    return {
        "description": description,
        "url": "",
        "version": "1.0",
        "year": 2014,
        "contributor": "instructblip.miniature",
        "date_created": "2014/01/01",
    }


def _coco_image(picture: Picture) -> Record:
    return {
        "license": 1,
        "file_name": picture.file_name,
        "coco_url": picture.url,
        "height": SIDE,
        "width": SIDE,
        "date_captured": "2014-01-01 00:00:00",
        "flickr_url": "",
        "id": picture.id,
    }


def _karpathy_image(imgid: int, split: str, picture: Picture) -> Record:
    sentences = [
        {
            "tokens": re.findall(r"\w+", raw.lower()),
            "raw": raw,
            "imgid": imgid,
            "sentid": _caption_id(picture, k),
        }
        for k, raw in enumerate(picture.captions)
    ]
    return {
        "filepath": picture.folder,
        "sentids": [sentence["sentid"] for sentence in sentences],
        "filename": picture.file_name,
        "imgid": imgid,
        "split": split,
        "sentences": sentences,
        "cocoid": picture.id,
    }


def _caption_id(picture: Picture, k: int) -> int:
    return picture.id * 10 + k


# --- VQAv2 ------------------------------------------------------------------------------------------------


def vqav2(subset: str, album: Sequence[Picture], per_picture: int, rng: random.Random) -> tuple[Record, Record]:
    """`v2_OpenEnded_mscoco_*_questions.json` and `v2_mscoco_*_annotations.json` of one subset."""
    shared = {
        "info": _info("Rendered scenes in the format of VQA v2.0"),
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


# --- VSR --------------------------------------------------------------------------------------------------


def vsr(album: Sequence[Picture], number: int, rng: random.Random) -> list[Record]:
    """Lines of `data/splits/zeroshot/*.jsonl`: statements about the pictures in turn, half of them true."""
    asked: Counter[object] = Counter()
    rows = []
    for i in range(number):
        picture = album[i % len(album)]
        rows.append(_vsr_row(picture, least_asked(statements(picture.scene), asked, rng), rng))
    return rows


def _vsr_row(picture: Picture, statement: Statement, rng: random.Random) -> Record:
    """All validators agree with the label; their lists are strings, as in the official files."""
    validators = str(rng.sample(range(1, 70), rng.randint(2, 3)))
    return {
        "image": picture.file_name,
        "image_link": picture.url,
        "caption": statement.text,
        "label": int(statement.true),
        "relation": statement.relation,
        "subj": statement.subject,
        "obj": statement.other,
        "annotator_id": rng.randint(1, 69),
        "vote_true_validator_id": validators if statement.true else "[]",
        "vote_false_validator_id": "[]" if statement.true else validators,
    }
