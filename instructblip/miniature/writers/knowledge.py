"""OK-VQA and A-OKVQA: questions about COCO pictures that are answered by a fact no picture shows."""

from __future__ import annotations

import random
import string
from collections import Counter
from pathlib import Path

from instructblip.miniature.knowledge import COLOUR_FACTS, bare, fact_behind, known_fact
from instructblip.miniature.programs import SYNONYMS
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import LICENCE, Record, votes
from instructblip.miniature.writers.questions import Asked, ask

PROGRAM = {"known-fact": known_fact}
CATEGORY = "six"  # of OK-VQA's kinds of knowledge, which are named by number
OKVQA_ANNOTATORS = 5  # whose answers stand twice in the file
AOKVQA_ANNOTATORS = 10
ALTERNATIVE_RATE = 0.12  # of annotators who think of the fact's other thing
DIFFICULT_RATE = 0.05  # of A-OKVQA's questions, marked as not to be asked without the choices
CHOICES = 4
ID_CHARACTERS = string.ascii_letters + string.digits


def write_okvqa(tree: Path, world: World) -> None:
    for subset, album, size in (("train2014", "coco_train", "okvqa_train"), ("val2014", "coco_test", "okvqa_test")):
        rng = world.rng(f"okvqa/{subset}")
        pictures = rng.sample(world.pictures(album), len(world.pictures(album)))
        questions, annotations = okvqa(subset, ask(pictures, world.sizes[size], PROGRAM, rng), rng)
        write_json(tree / f"okvqa/OpenEnded_mscoco_{subset}_questions.json", questions)
        write_json(tree / f"okvqa/mscoco_{subset}_annotations.json", annotations)


def okvqa(subset: str, asked: list[Asked], rng: random.Random) -> tuple[Record, Record]:
    """`OpenEnded_mscoco_*_questions.json` and `mscoco_*_annotations.json` of one subset."""
    shared = {
        "info": {"description": "Rendered scenes in the format of OK-VQA", "version": "1.1", "year": 2019},
        "data_type": "mscoco",
        "data_subtype": subset,
        "license": LICENCE,
    }
    questions = [
        {"image_id": item.picture.id, "question": item.question.text, "question_id": item.picture.id * 10 + item.k}
        for item in asked
    ]
    annotations = [_okvqa_annotation(item, rng) for item in asked]
    return shared | {"task_type": "Open-Ended", "questions": questions}, shared | {"annotations": annotations}


def _okvqa_annotation(asked: Asked, rng: random.Random) -> Record:
    """`answer` is `raw_answer` without its article, as the official one is stemmed."""
    said = _thought_of(asked.question.answer, OKVQA_ANNOTATORS, rng)
    return {
        "image_id": asked.picture.id,
        "answer_type": "other",
        "question_type": CATEGORY,
        "question_id": asked.picture.id * 10 + asked.k,
        "answers": [
            {"answer_id": answer_id, "raw_answer": answer, "answer_confidence": "yes", "answer": bare(answer)}
            for answer_id, answer in enumerate((answer for answer in said for _ in range(2)), start=1)
        ],
        "confidence": rng.randint(3, 5),
    }


def write_aokvqa(tree: Path, world: World) -> None:
    answers: Counter[str] = Counter()
    for split, album in (("train", "coco_train"), ("val", "coco_test"), ("test", "coco_test2015")):
        rng = world.rng(f"aokvqa/{split}")
        pictures = rng.sample(world.pictures(album), len(world.pictures(album)))
        asked = ask(pictures, world.sizes[f"aokvqa_{split}"], PROGRAM, rng)
        rows = [_aokvqa_row(split, item, rng) for item in asked]
        if split == "train":
            answers.update(answer for row in rows for answer in row["direct_answers"])
        if split == "test":  # its answers are with the leaderboard
            rows = [{key: value for key, value in row.items() if key not in HIDDEN} for row in rows]
        write_json(tree / f"aokvqa/aokvqa_v1p0_{split}.json", rows)
    common = [answer for answer, count in answers.items() if count > 1]
    (tree / "aokvqa/large_vocab_train.csv").write_text("".join(f"{answer}\n" for answer in sorted(answers)))
    (tree / "aokvqa/specialized_vocab_train.csv").write_text(
        "".join(f"{answer}\n" for answer in ["<unk>", *sorted(common)])
    )


HIDDEN = ("correct_choice_idx", "direct_answers", "rationales")


def _aokvqa_row(split: str, asked: Asked, rng: random.Random) -> Record:
    """The choices are what the same fact says of other colours or shapes; the right one stands anywhere."""
    fact, known = fact_behind(asked.question.answer)
    others = [answers[0] for kind, answers in fact.answers.items() if kind != known]
    right = bare(asked.question.answer)
    choices = rng.sample([right, *map(bare, rng.sample(others, CHOICES - 1))], CHOICES)
    return {
        "split": split,
        "image_id": asked.picture.id,
        "question_id": "".join(rng.choices(ID_CHARACTERS, k=22)),
        "question": asked.question.text,
        "choices": choices,
        "correct_choice_idx": choices.index(right),
        "direct_answers": [bare(answer) for answer in _thought_of(asked.question.answer, AOKVQA_ANNOTATORS, rng)],
        "difficult_direct_answer": rng.random() < DIFFICULT_RATE,
        "rationales": _rationales(known, right, fact in COLOUR_FACTS),
    }


def _rationales(known: str, answer: str, of_colour: bool) -> list[str]:
    if of_colour:
        return [
            f"The color is {known}, as that of {answer}.",
            f"It is {SYNONYMS.get(known, known)}.",
            f"{answer} is {known}.",
        ]
    return [f"It is a {known}, as {answer} is.", f"The shape is a {known}.", f"{answer} has the shape of a {known}."]


def _thought_of(answer: str, annotators: int, rng: random.Random) -> list[str]:
    """Most say the answer, some the other thing of which the fact is true."""
    fact, _ = fact_behind(answer)
    return votes(answer, fact.alternative(answer), ALTERNATIVE_RATE, annotators, rng)
