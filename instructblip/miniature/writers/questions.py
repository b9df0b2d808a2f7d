"""Question files. Votes follow from the answer; ids and orders are drawn apart from it and tell nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from instructblip.miniature import snapshots
from instructblip.miniature.albums import Picture
from instructblip.miniature.programs import PROGRAMS, SYNONYMS, Program, Question, least_asked
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import LICENCE, Record, info, votes

QUESTION_TYPES = {  # of VQAv2, and the programs it asks
    "colour-of": "what color is the",
    "what-at": "what",
    "where": "where is the",
    "exists": "is there a",
}
ANNOTATORS = 10
SYNONYM_RATE = 0.08  # of annotators who use another word than the rest
DOUBT_RATE = 0.2  # of VizWiz' annotators


class Asked(NamedTuple):
    picture: Picture
    k: int  # of the questions about this picture
    program: str
    question: Question


def ask(
    album: Sequence[Picture], number: int, programs: Mapping[str, Program], rng: random.Random, rounds: int = 1
) -> list[Asked]:
    """`number` questions or fewer, the programs in turn, each picture asked about at most `rounds` times.

    A program that has nothing to ask of a scene leaves its question out.
    """
    names = tuple(programs)
    counts: dict[str, Counter[object]] = {name: Counter() for name in names}
    asked: list[Asked] = []
    for i, picture in enumerate(album):
        for k in range(rounds):
            name = names[(i + k) % len(names)]
            if len(asked) < number and (candidates := programs[name](picture.scene)):
                asked.append(Asked(picture, k, name, least_asked(candidates, counts[name], rng)))
    return asked


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
    hidden = world.pictures("coco_test2015")  # the answers are with the server
    questions, _ = vqav2("test2015", hidden, world.sizes["vqav2_test"], world.rng("vqav2/test2015"))
    world.draw(tree, "coco_test2015")
    write_json(tree / "vqav2/v2_OpenEnded_mscoco_test2015_questions.json", questions)


def vqav2(subset: str, album: Sequence[Picture], per_picture: int, rng: random.Random) -> tuple[Record, Record]:
    """`v2_OpenEnded_mscoco_*_questions.json` and `v2_mscoco_*_annotations.json` of one subset."""
    shared = {
        "info": info("Rendered scenes in the format of VQA v2.0"),
        "data_type": "mscoco",
        "data_subtype": subset,
        "license": LICENCE,
    }
    asked = ask(album, per_picture * len(album), PROGRAMS, rng, rounds=per_picture)
    questions = [
        {"image_id": picture.id, "question": question.text, "question_id": picture.id * 1000 + k}
        for picture, k, _, question in asked
    ]
    annotations = [_annotation(item, rng) for item in asked]
    return shared | {"task_type": "Open-Ended", "questions": questions}, shared | {"annotations": annotations}


def _annotation(asked: Asked, rng: random.Random) -> Record:
    answer = asked.question.answer
    said = votes(answer, SYNONYMS.get(answer, answer), SYNONYM_RATE, ANNOTATORS, rng)
    return {
        "question_type": QUESTION_TYPES[asked.program],
        "multiple_choice_answer": answer,
        "answers": [
            {"answer": vote, "answer_confidence": "yes" if vote == answer else "maybe", "answer_id": answer_id}
            for answer_id, vote in enumerate(said, start=1)
        ],
        "image_id": asked.picture.id,
        "answer_type": "yes/no" if asked.program == "exists" else "other",
        "question_id": asked.picture.id * 1000 + asked.k,
    }


def write_vizwiz(tree: Path, world: World) -> None:
    for split in ("train", "val", "test"):
        world.draw(tree, f"vizwiz_{split}")
        rows = vizwiz(world.pictures(f"vizwiz_{split}"), world.rng(f"vizwiz/{split}"))
        if split == "test":  # its answers are with the server
            rows = [{"image": row["image"], "question": row["question"]} for row in rows]
        write_json(tree / f"vizwiz/{split}.json", rows)


def vizwiz(album: Sequence[Picture], rng: random.Random) -> list[Record]:
    """`train.json` and `val.json`: one question about each picture."""
    counts: Counter[object] = Counter()
    asked = [(picture, snapshots.ask(picture.scene, picture.look, counts, rng)) for picture in album]
    return [_vizwiz_row(picture, question, rng) for picture, question in asked if question]


def _vizwiz_row(picture: Picture, question: Question, rng: random.Random) -> Record:
    """Some annotators use another word, or give up where others see something, and are less sure."""
    answer = question.answer
    answerable = answer != snapshots.UNANSWERABLE
    other, confidence = rng.choice([(SYNONYMS.get(answer, answer), "maybe"), (snapshots.GIVING_UP, "no")])
    return {
        "answerable": int(answerable),
        "image": picture.file_name,
        "question": question.text,
        "answer_type": "other" if answerable else "unanswerable",
        "answers": [
            {"answer_confidence": "yes" if vote == answer else confidence, "answer": vote}
            for vote in votes(answer, other, DOUBT_RATE, ANNOTATORS, rng)
        ],
    }
