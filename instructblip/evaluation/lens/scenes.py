"""Scenes of the embedded world to look into: one object is asked about, and another one of its size stands beside it.

They are of the evaluation role, so no run was tuned on them. Places are shares of the picture's sides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, permutations

import torch
from PIL import Image
from torch import Tensor

from instructblip.data.media import decode
from instructblip.miniature.drawing import backdrop, render
from instructblip.miniature.programs import Question, colour_of, only_of_their_shape, what_at
from instructblip.miniature.scenes import CELL, COLOURS, SHAPES, SIDE, Object, Role, Scene, distinct, sample
from instructblip.miniature.world import encode

ANSWERS = {"colour-of": tuple(COLOURS), "what-at": SHAPES}  # of each program that is asked, in turn
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Pair:
    """Two objects of one size in a scene, each told by its shape alone; `asked` is asked about, or `other` instead."""

    scene: Scene
    program: str
    asked: Object
    other: Object
    question: Question
    instead: Question
    look: str  # decides what of the picture has no meaning

    def picture(self, without: Object | None = None) -> Image.Image:
        """The scene as a model meets it; an object that is left out has the background's colour over its cell."""
        canvas = render(self.scene, random.Random(self.look))
        if without is not None:
            left, top, right, bottom = (round(SIDE * end) for end in box(without))
            background = backdrop(random.Random(self.look))  # which `render` draws first
            canvas.paste(background.crop((left, top, right, bottom)), (left, top))
        return decode(encode(canvas))


def pairs(count: int, seed: int) -> list[Pair]:
    """One pair of each of `count` distinct scenes. Raises ValueError for fewer than two scenes."""
    if count < 2:
        raise ValueError(f"scenes={count}: an interval needs two scenes at least, 200 are a good number")
    rng = random.Random(f"{seed}/lens")
    scenes = distinct(count, Role.evaluation, rng, _with_a_pair)
    return [
        _pair(scene, program, rng, f"{seed}/lens/{number}")
        for number, (scene, program) in enumerate(zip(scenes, cycle(ANSWERS), strict=False))
    ]


def box(item: Object) -> Box:
    """The cell an object lies in: as large for every object."""
    left, top = item.column * CELL / SIDE, item.row * CELL / SIDE
    return left, top, left + CELL / SIDE, top + CELL / SIDE


def cover(place: Box, grid: tuple[int, int]) -> Tensor:
    """(rows, columns): what share of each patch lies within the box."""
    left, top, right, bottom = place
    return torch.outer(_overlap(top, bottom, grid[0]), _overlap(left, right, grid[1]))


def _overlap(low: float, high: float, count: int) -> Tensor:
    """(count,): what share of each of `count` equal parts of 0 to 1 lies between two numbers."""
    edges = torch.linspace(0, 1, count + 1, dtype=torch.float64)  # (count + 1,)
    inside = (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)
    return (inside * count).round(decimals=9).float()  # of a neighbour not even what rounding left


def _pair(scene: Scene, program: str, rng: random.Random, look: str) -> Pair:
    asked, other = rng.choice(_candidates(scene))
    by_colour = dict(zip(only_of_their_shape(scene), colour_of(scene), strict=True))
    by_place = dict(zip(scene.objects, what_at(scene), strict=True))
    questions = by_colour if program == "colour-of" else by_place
    return Pair(scene, program, asked, other, questions[asked], questions[other], look)


def _with_a_pair(rng: random.Random) -> Scene:
    while True:
        scene = sample(rng)
        if _candidates(scene):
            return scene


def _candidates(scene: Scene) -> Sequence[tuple[Object, Object]]:
    """Of one size, and with different answers whichever program asks."""
    alone = only_of_their_shape(scene)
    return [(a, b) for a, b in permutations(alone, 2) if a.size == b.size and a.colour != b.colour]
