"""Questions about printed words (held out: TextVQA), and what a reading machine finds of them."""

from __future__ import annotations

import random
from typing import NamedTuple

from instructblip.miniature import font
from instructblip.miniature.programs import Question, only_of_their_colour, only_of_their_shape
from instructblip.miniature.scenes import CELL, SIDE, WORDS, Object, Scene

WRONG_TOKENS = 2  # words that the reading machine finds and that are not there


class Token(NamedTuple):
    """A word and its box: left, top, width, height as shares of the picture's side."""

    word: str
    box: tuple[float, float, float, float]


def word_on(scene: Scene) -> list[Question]:
    """Only scenes with several words are asked about: which one is meant must be seen."""
    lettered = [item for item in scene.objects if item.word]
    alone = {"shape": only_of_their_shape(scene), "colour": only_of_their_colour(scene)}
    questions = []
    for item in lettered if len(lettered) > 1 else ():
        questions.append(Question(f"what word is on the {item.name}?", item.word))
        questions.append(Question(f"what is printed in the {item.place}?", item.word))
        if item in alone["shape"]:
            questions.append(Question(f"what does the {item.shape} say?", item.word))
        if item in alone["colour"]:
            questions.append(Question(f"what is written on the {item.colour} object?", item.word))
    return questions


def read(scene: Scene, rng: random.Random) -> list[Token]:
    """The words of the scene and WRONG_TOKENS others, in an order that means nothing."""
    printed = [Token(item.word, _box(item)) for item in scene.objects if item.word]
    others = rng.sample(sorted(set(WORDS) - {token.word for token in printed}), WRONG_TOKENS)
    cells = rng.sample(range(9), WRONG_TOKENS)
    wrong = [Token(word, _box(Object("", "", "", cell, word))) for word, cell in zip(others, cells, strict=True)]
    return rng.sample([*printed, *wrong], len(printed) + len(wrong))


def _box(item: Object) -> tuple[float, float, float, float]:
    width = font.width(item.word)
    left = int((item.column + 0.5) * CELL - width / 2)
    top = (item.row + 1) * CELL - 1 - font.HEIGHT
    return left / SIDE, top / SIDE, width / SIDE, font.HEIGHT / SIDE
