"""Pictures of the embedded world that no run has seen, each with something to ask about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instructblip import recipes
from instructblip.evaluation.subject import Subject
from instructblip.evaluation.tables.results import results
from instructblip.miniature.albums import Sizes
from instructblip.miniature.programs import PROGRAMS
from instructblip.miniature.scenes import COLOURS, PLACES, SHAPES
from instructblip.miniature.world import World

ALBUM = "coco_test"  # of the evaluation role, in the style that runs are trained on
SEED = 2_000  # of a world of its own; those that runs are trained on have small numbers (ours)
OPTIONS = {"colour-of": tuple(COLOURS), "what-at": SHAPES, "where": PLACES, "exists": ("yes", "no")}


@dataclass(frozen=True)
class Offered:
    """A picture file, what is asked about it, and what may be ranked."""

    image: str
    instruction: str
    options: str


def examples(asked: Subject, count: int, folder: Path) -> list[Offered]:
    """Pictures drawn into `folder`; none for a model of photographs."""
    if asked.checkpoint is not None or not results([str(asked.results)], asked.results.parent)[0].synthetic:
        return []
    return drawn(count, folder)


def drawn(count: int, folder: Path) -> list[Offered]:
    """One kind of question after the other, in the words that VQAv2's are asked in."""
    evaluation = recipes.load("vqav2").evaluation
    assert evaluation is not None
    world, found = World(SEED, Sizes(given={ALBUM: count})), []
    kinds = list(PROGRAMS)
    for number, picture in enumerate(world.pictures(ALBUM)):
        questions = {kind: program(picture.scene) for kind, program in PROGRAMS.items()}
        order = kinds[number % len(kinds) :] + kinds[: number % len(kinds)]
        kind = next(each for each in order if questions[each])
        question = world.rng(f"demo/{picture.id}").choice(questions[kind])
        file = folder / f"{picture.id}.jpg"
        file.write_bytes(world.encoded(ALBUM, picture))
        prompt = evaluation.prompts["paper"].format(question=question.text)
        found.append(Offered(str(file), prompt, "\n".join(OPTIONS[kind])))
    return found
