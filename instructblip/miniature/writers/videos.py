"""Questions about clips: MSVD-QA and MSRVTT-QA with one word for an answer, iVQA with five annotators."""

from __future__ import annotations

import csv
import random
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from instructblip.miniature.clips import PROGRAMS, Clip, clips, encode, frames
from instructblip.miniature.programs import SYNONYMS, Question, least_asked
from instructblip.miniature.scenes import Role, distinct, sample
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import Record

ROLES = {"train": Role.tuning, "val": Role.selection, "test": Role.evaluation}
THINGS = partial(sample, counts=(2, 3))
QUESTIONS = len(PROGRAMS)  # about a clip of MSVD-QA and MSRVTT-QA
MSRVTT_FOLDERS = {"train": "TrainValVideo", "val": "TrainValVideo", "test": "TestVideo"}
CATEGORIES = 20  # of MSR-VTT
STILL = 0.12  # of iVQA's clips, in which nothing moves
NOTHING = ("none", "none", "none", "NA", "nothing")
DEVIATIONS = 2  # of the five annotators, at most
TURNS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}
IVQA_COLUMNS = ("video_id", "start", "end", "question", *(f"answer{k}" for k in range(1, 6)))


class Film(NamedTuple):
    name: str  # of the file, without its extension
    clip: Clip


def write_msvd_qa(tree: Path, world: World) -> None:
    """The clips of all splits are numbered through; a second file names them, its lines ending as on Windows."""
    films = {split: msvd(world, split) for split in ROLES}
    shown = [film for split in ROLES for film in films[split]]
    _draw(tree / "msvd/YouTubeClips", ".avi", shown, world)
    mapping = "".join(f"{film.name} vid{number}\r\n" for number, film in enumerate(shown, start=1))
    first, row_id = 1, 0
    answers: set[str] = set()
    for split in ROLES:
        asked = _asked(films[split], world.sizes[f"msvd_qa_{split}"], world.rng(f"msvd_qa/{split}"))
        rows: list[Record] = [
            {"answer": question.answer, "id": row_id + k, "question": question.text, "video_id": first + place}
            for k, (place, question) in enumerate(asked)
        ]
        write_json(tree / f"msvd_qa/{split}_qa.json", rows)
        first, row_id = first + len(films[split]), row_id + len(rows)
        answers |= {row["answer"] for row in rows}
    (tree / "msvd_qa/youtube_mapping.txt").write_bytes(mapping.encode())
    write_json(tree / "msvd_qa/qa_ans2label.json", _labels(answers))


def write_msrvtt_qa(tree: Path, world: World) -> None:
    """The answer list is of the training answers alone."""
    first, row_id = 0, 0
    for split, folder in MSRVTT_FOLDERS.items():
        films, rng = msrvtt(world, split, first), world.rng(f"msrvtt_qa/{split}")
        _draw(tree / "msrvtt" / folder, ".mp4", films, world)
        categories = [rng.randrange(CATEGORIES) for _ in films]
        rows: list[Record] = [
            {
                "answer": question.answer,
                "category_id": categories[place],
                "id": row_id + k,
                "question": question.text,
                "video_id": first + place,
            }
            for k, (place, question) in enumerate(_asked(films, world.sizes[f"msrvtt_qa_{split}"], rng))
        ]
        write_json(tree / f"msrvtt_qa/{split}_qa.json", rows)
        if split == "train":
            write_json(tree / "msrvtt_qa/qa_ans2label.json", _labels({row["answer"] for row in rows}))
        first, row_id = first + len(films), row_id + len(rows)


def write_ivqa(tree: Path, world: World) -> None:
    """`vocab.json`: the training answers that two annotators or more gave."""
    for split in ROLES:
        films, rng = ivqa(world, split), world.rng(f"ivqa/questions/{split}")
        _draw(tree / "ivqa", ".webm", films, world)
        rows = list(_ivqa_rows(films, rng))
        file = tree / f"ivqa/{split}.csv"
        with file.open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines).writerows([IVQA_COLUMNS, *rows])
        if split == "train":
            given = Counter(answer for row in rows for answer in row[4:])
            write_json(tree / "ivqa/vocab.json", _labels({answer for answer, number in given.items() if number > 1}))


def msvd(world: World, split: str) -> list[Film]:
    rng = world.rng(f"msvd/{split}")
    number = -(-world.sizes[f"msvd_qa_{split}"] // QUESTIONS)
    return [Film(_youtube(rng), clip) for clip in clips(number, world.role(ROLES[split]), rng, THINGS)]


def msrvtt(world: World, split: str, first: int) -> list[Film]:
    """Clips numbered from `first`."""
    rng = world.rng(f"msrvtt/{split}")
    number = -(-world.sizes[f"msrvtt_qa_{split}"] // QUESTIONS)
    return [
        Film(f"video{first + k}", clip) for k, clip in enumerate(clips(number, world.role(ROLES[split]), rng, THINGS))
    ]


def ivqa(world: World, split: str) -> list[Film]:
    """One clip a question; in some nothing moves."""
    rng = world.rng(f"ivqa/{split}")
    number = world.sizes[f"ivqa_{split}"]
    still = round(STILL * number)
    made = clips(number - still, world.role(ROLES[split]), rng, THINGS)
    made += [Clip(scene) for scene in distinct(still, world.role(ROLES[split]), rng, THINGS)]
    rng.shuffle(made)
    return [Film(_youtube(rng), clip) for clip in made]


def _asked(films: Sequence[Film], number: int, rng: random.Random) -> list[tuple[int, Question]]:
    """(place of the film, question): every film is asked one question of each program."""
    asked = {program: Counter[object]() for program in PROGRAMS}
    questions = [
        (place, least_asked(ask(film.clip), asked[program], rng))
        for place, film in enumerate(films)
        for program, ask in PROGRAMS.items()
    ]
    return questions[:number]


def _ivqa_rows(films: Sequence[Film], rng: random.Random) -> Iterator[tuple[str, ...]]:
    """One question a clip, programs in turn, without its mark. Of a still clip, all say that nothing moves."""
    asked: Counter[object] = Counter()
    programs = cycle(PROGRAMS.values())
    for film in films:
        if film.clip.mover:
            question = least_asked(next(programs)(film.clip), asked, rng)
            text, answers = question.text, _annotators(question.answer, rng)
        else:
            text, answers = rng.choice(("what shape is moving?", "what color is the moving shape?")), list(NOTHING)
        rng.shuffle(answers)
        name, start, end = film.name.rsplit("_", 2)
        yield name, start, end, text.removesuffix("?").capitalize(), *answers


def _annotators(answer: str, rng: random.Random) -> list[str]:
    """Most of the five give the answer, the others another word for it."""
    other = (TURNS | SYNONYMS).get(answer, f"the {answer}")
    deviating = rng.randint(0, DEVIATIONS)
    return [answer] * (5 - deviating) + [other] * deviating


def _youtube(rng: random.Random) -> str:
    """`{id}_{start}_{end}`: ids of eleven characters, some of which begin with a dash or hold underscores."""
    id = "".join(rng.choices(f"{string.ascii_letters}{string.digits}-_", k=11))
    start = rng.randrange(300)
    return f"{id}_{start}_{start + rng.randint(2, 30)}"


def _labels(answers: set[str]) -> dict[str, int]:
    return {answer: label for label, answer in enumerate(sorted(answers))}


def _draw(folder: Path, suffix: str, films: Sequence[Film], world: World) -> None:
    for film in films:
        encode(folder / f"{film.name}{suffix}", frames(film.clip, world.rng(f"look/{suffix}/{film.name}")))
