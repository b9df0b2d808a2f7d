"""Book covers: the title printed on one or two objects above, the author's name on one below, a symbol between.

The symbol's shape tells the genre.
"""

from __future__ import annotations

import random

from instructblip.miniature.programs import Question
from instructblip.miniature.scenes import PAIRS, SIZES, WORDS, Object, Scene

TITLE_CELLS = ((1,), (0, 2))  # of a title of one word, of two
SYMBOL_CELL, AUTHOR_CELL = 4, 7
GENRES = {"circle": "Sports", "square": "Cookbooks", "triangle": "Travel", "star": "Science & Math"}
TITLE = "What is the title of this book?"
WHO = ("Who wrote this book?", "Who is the author of this book?")
WHAT = ("What is the genre of this book?", "What type of book is this?")
CLOSED = ("Is this book related to {genre}?", "Is this a {genre} book?")


def cover(rng: random.Random) -> Scene:
    """The scene of one cover; its words are distinct."""
    cells = [*rng.choice(TITLE_CELLS), AUTHOR_CELL, SYMBOL_CELL]
    words = [*rng.sample(WORDS, len(cells) - 1), ""]
    pairs = rng.sample(PAIRS, len(cells))
    return Scene(
        tuple(
            Object(shape, colour, rng.choice(tuple(SIZES)), cell, word)
            for (shape, colour), cell, word in zip(pairs, cells, words, strict=True)
        )
    )


def isbn(id: int) -> str:
    """Ten characters: nine digits and the check character, which may be X."""
    digits = f"{id:09d}"
    check = -sum((10 - i) * int(digit) for i, digit in enumerate(digits)) % 11
    return digits + ("X" if check == 10 else str(check))


def title(scene: Scene) -> str:
    return " ".join(word.capitalize() for cell, word in _words(scene) if cell < min(AUTHOR_CELL, SYMBOL_CELL))


def author(scene: Scene) -> str:
    return next(word.capitalize() for cell, word in _words(scene) if cell == AUTHOR_CELL)


def genre(scene: Scene) -> str:
    return next(GENRES[item.shape] for item in scene.objects if item.cell == SYMBOL_CELL)


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Five of each cover, two of which are answered yes and no, in either order."""
    true = genre(scene)
    other = rng.choice([name for name in GENRES.values() if name != true])
    closed = [Question(rng.choice(CLOSED).format(genre=name), yes) for name, yes in ((true, "Yes"), (other, "No"))]
    return [
        Question(rng.choice(WHO), author(scene)),
        Question(TITLE, title(scene)),
        Question(rng.choice(WHAT), true),
        *rng.sample(closed, 2),
    ]


def program(question: str) -> str:
    """What a question about a cover is a case of, as `design` names it."""
    known = {TITLE: "title", **dict.fromkeys(WHO, "author"), **dict.fromkeys(WHAT, "genre")}
    return known.get(question, "about-genre")


def _words(scene: Scene) -> list[tuple[int, str]]:
    return sorted((item.cell, item.word) for item in scene.objects if item.word)
