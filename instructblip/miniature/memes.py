"""Memes: a word printed below things. The harmless rule of the label: the word holds for none of the things.

Every scene comes with one word that holds and one that does not, and every word as often with the one label as
with the other. So neither the word nor the picture tells the label.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from instructblip.miniature.drawing import render
from instructblip.miniature.font import print_word
from instructblip.miniature.scenes import COLOURS, GRID, PAIRS, SHAPES, SIDE, SIZES, Object, Scene

NAMES = (*COLOURS, *SHAPES)
THINGS = (2, 3)  # in a meme
ABOVE = GRID * (GRID - 1)  # cells above the row of the word
MARGIN = 5  # pixels between the word and the lower edge


@dataclass(frozen=True)
class Meme:
    scene: Scene
    word: str

    @property
    def label(self) -> int:
        return int(not holds(self.word, self.scene))


def holds(word: str, scene: Scene) -> bool:
    return any(word in (item.shape, item.colour) for item in scene.objects)


def draw_things(rng: random.Random) -> Scene:
    """A scene whose last row is free for the word."""
    number = rng.choice(THINGS)
    cells = rng.sample(range(ABOVE), number)
    pairs = rng.sample(PAIRS, number)
    return Scene(
        tuple(
            Object(shape, colour, rng.choice(tuple(SIZES)), cell)
            for (shape, colour), cell in zip(pairs, cells, strict=True)
        )
    )


def memes(scenes: Iterable[Scene], rng: random.Random) -> list[Meme]:
    """Two of each scene, in random order over all."""
    written: Counter[tuple[str, bool]] = Counter()
    made = []
    for scene in scenes:
        for true in (True, False):
            words = [word for word in rng.sample(NAMES, len(NAMES)) if holds(word, scene) is true]
            word = min(words, key=lambda word: written[word, true])
            written[word, true] += 1
            made.append(Meme(scene, word))
    rng.shuffle(made)
    return made


def draw(meme: Meme, rng: random.Random) -> Image.Image:
    image = render(meme.scene, rng)
    print_word(image, meme.word, SIDE / 2, SIDE - MARGIN)
    return image
