"""Questions about photographs taken without seeing (held out: VizWiz): cut off, out of focus, not to be answered."""

from __future__ import annotations

import random
from collections import Counter

from instructblip.miniature.drawing import VIEW, Look
from instructblip.miniature.programs import Question, least_asked, only_of_their_colour, only_of_their_shape
from instructblip.miniature.scenes import Object, Scene

UNANSWERABLE, GIVING_UP = "unanswerable", "unsuitable"
HOPELESS = 4.0  # pixels of blur from which nothing can be told
WANTED_RATE = 0.1  # of questions meant not to be answered; with those that turn out so about 0.45 (VizWiz val 0.43)
SPOKEN = (  # the questions are transcripts of speech
    "{question}",
    "{question} thank you",
    "hi, {question}",
    "please tell me, {question}",
    "okay, here is another one. {question}",
)


def visible(scene: Scene, look: Look) -> list[Object]:
    """What the photograph shows well enough to be told."""
    if look.blur >= HOPELESS:
        return []
    if look.crop is None:
        return list(scene.objects)
    left, top = look.crop
    return [item for item in scene.objects if 0 <= item.column - left < VIEW and 0 <= item.row - top < VIEW]


def about_this(scene: Scene, look: Look) -> list[Question]:
    """What is asked of an object that is alone of its shape or colour in the whole scene, seen or not."""
    seen = visible(scene, look)
    colours = {item.shape: item.colour for item in seen}
    shapes = {item.colour: item.shape for item in seen}
    return [
        *(
            Question(f"what color is this {item.shape}?", colours.get(item.shape, UNANSWERABLE))
            for item in only_of_their_shape(scene)
        ),
        *(
            Question(f"what is the shape of this {item.colour} thing?", shapes.get(item.colour, UNANSWERABLE))
            for item in only_of_their_colour(scene)
        ),
    ]


def ask(scene: Scene, look: Look, asked: Counter[object], rng: random.Random) -> Question | None:
    """One question, in WANTED_RATE of the cases one that cannot be answered where there is such."""
    questions = about_this(scene, look)
    wanted = rng.random() < WANTED_RATE
    candidates = [question for question in questions if (question.answer == UNANSWERABLE) == wanted] or questions
    if not candidates:
        return None
    chosen = least_asked(candidates, asked, rng)
    return Question(spoken(chosen.text, rng), chosen.answer)


def spoken(question: str, rng: random.Random) -> str:
    return rng.choice(SPOKEN).format(question=question)
