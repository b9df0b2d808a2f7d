"""The embedded world: coloured shapes on a 3x3 grid. A `Scene` is content alone; `drawing` makes a picture of it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
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
# in no picture that is tuned on or aligned with, so that a caption may name something new
WITHHELD = (("circle", "purple"), ("square", "orange"), ("triangle", "green"), ("star", "blue"))
PAIRS = tuple(pair for pair in product(SHAPES, COLOURS) if pair not in WITHHELD)
WORDS = (  # that may be printed on objects
    *("ace", "bay", "cat", "dog", "elf", "fox", "gum", "hat", "ink", "jam", "key", "log"),
    *("moon", "nest", "oven", "pear", "quiz", "rope", "soup", "tent", "vase", "wolf", "yarn", "zoo"),
)
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


class Domain(Enum):
    """How many objects are of a withheld shape and colour, in the words of NoCaps: none, one, all."""

    inside = "in-domain"
    near = "near-domain"
    outside = "out-domain"


@dataclass(frozen=True, slots=True, order=True)
class Object:
    shape: str
    colour: str
    size: str
    cell: int  # 0..8, row by row
    word: str = ""  # printed on it

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
        content = ";".join(_content(item) for item in sorted(self.objects))
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def role(self) -> Role:
        return _role(self.identity)

    @property
    def domain(self) -> Domain:
        new = sum((item.shape, item.colour) in WITHHELD for item in self.objects)
        return Domain.inside if new == 0 else Domain.outside if new == len(self.objects) else Domain.near


Draw = Callable[[random.Random], Scene]


def sample(
    rng: random.Random,
    counts: Sequence[int] = COUNTS,
    words: Sequence[int] = (0,),
    domains: Sequence[Domain] = (Domain.inside,),
) -> Scene:
    """One scene: how many objects, how many printed words and which domain are drawn uniformly from what is given."""
    count = rng.choice(counts)
    pairs = _pairs(count, rng.choice(domains), rng)
    cells = rng.sample(range(GRID**2), count)
    sizes = rng.choices(tuple(SIZES), k=count)
    printed = rng.sample(WORDS, min(count, rng.choice(words)))
    printed += [""] * (count - len(printed))
    return Scene(
        tuple(
            Object(shape, colour, size, cell, word)
            for (shape, colour), size, cell, word in zip(pairs, sizes, cells, printed, strict=True)
        )
    )


def distinct(number: int, role: Role, rng: random.Random, draw: Draw = sample) -> list[Scene]:
    """`number` scenes of one role as `draw` draws them, no two with the same content."""
    scenes: dict[str, Scene] = {}
    while len(scenes) < number:
        scene = draw(rng)
        identity = scene.identity
        if _role(identity) is role:
            scenes.setdefault(identity, scene)
    return list(scenes.values())


def _pairs(count: int, domain: Domain, rng: random.Random) -> list[tuple[str, str]]:
    new = {Domain.inside: 0, Domain.near: 1, Domain.outside: count}[domain]
    pairs = [*rng.sample(WITHHELD, new), *rng.sample(PAIRS, count - new)]
    return rng.sample(pairs, count)


def _role(identity: str) -> Role:
    bucket = int(identity[:8], 16) % 100
    return next(role for role in Role if bucket in role.value)


def _content(item: Object) -> str:
    """What identifies an object; a scene without words is the same scene in every set."""
    content = f"{item.shape},{item.colour},{item.size},{item.cell}"
    return f"{content},{item.word}" if item.word else content
