"""The embedded world: coloured shapes on a 3x3 grid, and how they are drawn.

A `Scene` is content alone. What varies without meaning anything (background, position within the cell, shade)
is drawn from the generator passed to `render`.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product

from PIL import Image, ImageDraw

SIDE = 48  # pixels of a picture
GRID = 3
CELL = SIDE // GRID
SUPERSAMPLING = 4

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

SHIFT = 0.8  # pixels an object may lie off the middle of its cell
SHADE = 12  # how far a channel of an object may be from its colour
BACKGROUNDS = range(196, 236)
TINT = 6  # how far a channel of the background may be from grey


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


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """The scene as an RGB picture of SIDE x SIDE pixels; `rng` decides what has no meaning."""
    grey = rng.choice(BACKGROUNDS)
    side = SIDE * SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), _near((grey, grey, grey), TINT, rng))
    draw = ImageDraw.Draw(canvas)
    for item in scene.objects:
        x = (item.column + 0.5) * CELL + rng.uniform(-SHIFT, SHIFT)
        y = (item.row + 0.5) * CELL + rng.uniform(-SHIFT, SHIFT)
        radius = SIZES[item.size]
        corners = [(x + radius * dx, y + radius * dy) for dx, dy in OUTLINES[item.shape]]
        outline = [(SUPERSAMPLING * u, SUPERSAMPLING * v) for u, v in corners]
        draw.polygon(outline, fill=_near(COLOURS[item.colour], SHADE, rng))
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def _near(colour: tuple[int, int, int], distance: int, rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, channel + rng.randint(-distance, distance))) for channel in colour)
    return red, green, blue


def _polygon(radii: Sequence[float], start: float = -90.0) -> list[tuple[float, float]]:
    """Corners at equal angles and at the given distances from the middle; `start` in degrees, -90 is up."""
    step = math.radians(360 / len(radii))
    angles = [math.radians(start) + k * step for k in range(len(radii))]
    return [(r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)]


OUTLINES = {  # corners as multiples of the radius
    "circle": _polygon([1.0] * 48),
    "square": _polygon([1.2] * 4, start=-45.0),
    "triangle": _polygon([1.15] * 3),
    "star": _polygon([1.15, 0.45] * 5),
}
