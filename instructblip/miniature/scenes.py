"""The embedded world: coloured shapes on a 3x3 grid. A `Scene` is content alone; `drawing` makes a picture of it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product

SIDE = 48  # pixels of a picture
GRID = 3
CELL = SIDE // GRID

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (215, 35, 40),
    "green": (35, 155, 60),
    "blue": (35, 80, 215),
    "yellow": (245, 220, 35),
    "purple": (140, 45, 170),
    "orange": (245, 125, 20),
}
SIZES = {"small": 4.4, "large": 6.3}  # radius of a circle in pixels
PLACES = (  # of the cells, row by row
    "top left",
    "top center",
    "top right",
    "middle left",
    "center",
    "middle right",
    "bottom left",
    "bottom center",
    "bottom right",
)
# in no picture that is tuned on or aligned with, so that a caption may one day name something new
WITHHELD = frozenset({("circle", "purple"), ("square", "orange"), ("triangle", "green"), ("star", "blue")})
PAIRS = tuple(pair for pair in product(SHAPES, COLOURS) if pair not in WITHHELD)
COUNTS = (1, *[2] * 3, *[3] * 4, *[4] * 4)  # of objects; seldom one: there are few such scenes


class Role(Enum):
    """What a scene may be used for: the buckets, of 100, that its identity may fall into.

    A property of the scene and not of a sampler: what is tuned on shares no scene with what is evaluated, in
    every dataset and under every seed.
    """

    language = range(0, 20)  # text for the language model and the tokenizers
    alignment = range(20, 40)
    tuning = range(40, 70)
    selection = range(70, 80)
    evaluation = range(80, 100)


@dataclass(frozen=True, slots=True, order=True)
class Object:
    shape: str
    colour: str
    size: str
    cell: int  # 0..8, row by row

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        return PLACES[self.cell]

    @property
    def row(self) -> int:
        return self.cell // GRID

    @property
    def column(self) -> int:
        return self.cell % GRID


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects in distinct cells, no two of one shape and colour. Their order means nothing."""

    objects: tuple[Object, ...]

    @property
    def identity(self) -> str:
        """Hex digest of the content, whatever the order of the objects."""
        content = ";".join(f"{o.shape},{o.colour},{o.size},{o.cell}" for o in sorted(self.objects))
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def role(self) -> Role:
        bucket = int(self.identity[:8], 16) % 100
        return next(role for role in Role if bucket in role.value)


def sample(rng: random.Random, counts: Sequence[int] = COUNTS) -> Scene:
    """One scene; the number of its objects is drawn uniformly from `counts`, repetitions included."""
    count = rng.choice(counts)
    pairs = rng.sample(PAIRS, count)
    cells = rng.sample(range(GRID**2), count)
    sizes = rng.choices(tuple(SIZES), k=count)
    return Scene(
        tuple(
            Object(shape, colour, size, cell) for (shape, colour), size, cell in zip(pairs, sizes, cells, strict=True)
        )
    )


def distinct(number: int, role: Role, rng: random.Random, counts: Sequence[int] = COUNTS) -> list[Scene]:
    """`number` scenes of one role, no two with the same content."""
    scenes: dict[str, Scene] = {}
    while len(scenes) < number:
        scene = sample(rng, counts)
        if scene.role is role:
            scenes.setdefault(scene.identity, scene)
    return list(scenes.values())
