"""Held-in programs of LLaVA-Instruct: dialogue, detail and why. None compares, counts or relates two objects."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from instructblip.miniature.programs import PROGRAMS, Question, least_asked, with_article
from instructblip.miniature.scenes import Scene

DETAIL_REQUESTS = (
    "Describe the picture in detail.",
    "Can you describe this image in detail?",
    "What do you see in this picture? Please be precise.",
    "Write a detailed description of the image.",
    "Tell me everything that the picture shows.",
)
OPENINGS = ("The picture shows a plain background.", "This is a drawing on a plain background.", "The image is simple.")
SENTENCES: tuple[Callable[[str, str], str], ...] = (
    lambda thing, place: f"There is {with_article(thing)} in the {place}.",
    lambda thing, place: f"In the {place}, there is {with_article(thing)}.",
    lambda thing, place: f"The {place} shows {with_article(thing)}.",
)
TRAITS = {  # of each shape or colour (what its things have or are, and why); no fact that `knowledge` asks for
    "circle": ("round", "a circle is round"),
    "square": ("with four corners", "a square has four corners"),
    "triangle": ("with three corners", "a triangle has three corners"),
    "star": ("with five points", "a star has five points"),
    "red": ("like the color of a tomato", "a tomato is red"),
    "green": ("like the color of a cucumber", "a cucumber is green"),
    "blue": ("like the color of a sapphire", "a sapphire is blue"),
    "yellow": ("like the color of a canary", "a canary is yellow"),
    "purple": ("like the color of an eggplant", "an eggplant is purple"),
    "orange": ("like the color of a basketball", "a basketball is orange"),
}
WHY_REQUESTS = (
    "Why might someone say that there is something {trait} in the picture?",
    "Why could a viewer notice something {trait} here?",
    "What is the reason to say that the image has something {trait} in it?",
)


class Turn(NamedTuple):
    human: str
    reply: str


def dialogue(scene: Scene, rng: random.Random, asked: Counter[object]) -> list[Turn]:
    """Two to four questions of different programs, answered in sentences; `asked` keeps the answers balanced."""
    candidates = [(name, questions) for name, ask in PROGRAMS.items() if (questions := ask(scene))]
    drawn = rng.sample(candidates, rng.randint(2, len(candidates)))
    chosen = [(program, least_asked(questions, asked, rng)) for program, questions in drawn]
    return [Turn(question.text, _REPLIES[program](question)) for program, question in chosen]


def detail(scene: Scene, rng: random.Random, _: Counter[object]) -> list[Turn]:
    """Every object with its size, colour and place, in an order that means nothing."""
    sentences = [
        rng.choice(SENTENCES)(f"{item.size} {item.name}", item.place)
        for item in rng.sample(scene.objects, len(scene.objects))
    ]
    return [Turn(rng.choice(DETAIL_REQUESTS), " ".join([rng.choice(OPENINGS), *sentences]))]


def why(scene: Scene, rng: random.Random, _: Counter[object]) -> list[Turn]:
    """The reason is in the picture, and in what is known of shapes and colours."""
    item = rng.choice(scene.objects)
    attribute = rng.choice((item.shape, item.colour))
    trait, fact = TRAITS[attribute]
    human = rng.choice(WHY_REQUESTS).format(trait=trait)
    return [Turn(human, f"Because there is {with_article(item.name)} in the {item.place}, and {fact}.")]


Speech = Callable[[Scene, random.Random, Counter[object]], list[Turn]]
SPEECH: dict[str, Speech] = {"dialogue": dialogue, "detail": detail, "why": why}


def _asked_about(question: Question) -> str:
    """`red circle` of `Where is the red circle?`, `a red circle` of `Is there a red circle?`."""
    words = question.text.removesuffix("?").split()
    return " ".join(words[2:] if words[0] == "Is" else words[words.index("the") + 1 :])


_REPLIES: dict[str, Callable[[Question], str]] = {
    "colour-of": lambda question: f"The {_asked_about(question)} is {question.answer}.",
    "what-at": lambda question: f"The shape in the {_asked_about(question)} is {with_article(question.answer)}.",
    "where": lambda question: f"The {_asked_about(question)} is in the {question.answer}.",
    "exists": lambda question: (
        f"Yes, there is {_asked_about(question)} in the picture."
        if question.answer == "yes"
        else f"No, there is no {_asked_about(question).split(maxsplit=1)[1]} in the picture."
    ),
}
