"""How a scene is drawn. What varies without meaning anything comes from the generator passed to `render`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from PIL import Image, ImageDraw, ImageFilter

from instructblip.miniature.font import print_word
from instructblip.miniature.scenes import CELL, COLOURS, SIDE, SIZES, Object, Scene

SUPERSAMPLING = 4  # objects lie on a grid of quarters of a pixel
STAMP = CELL + 4  # side of the square that holds any object, wherever between two pixels it lies
SHIFT = 3  # quarters of a pixel an object may lie off the middle of its cell
SHADE = 12  # how far a channel of an object may be from its colour
GREYS = range(196, 236)  # of the background
TINT = 6  # how far a channel of the background may be from grey
STRIPE = 6  # pixels
LINE = 1.6  # width of an outline in pixels
VIEW = 2  # cells of the part of the scene that a crop shows, in each direction

Colour = tuple[int, int, int]


class Background(Enum):
    plain = "plain"
    striped = "striped"


@dataclass(frozen=True)
class Look:
    """What of a picture is not its scene but its style."""

    outline: bool = False  # objects are not filled
    background: Background = Background.plain
    blur: float = 0.0  # radius in pixels of the finished picture
    crop: tuple[int, int] | None = None  # column and row of the first of VIEW x VIEW cells that fill the picture


PLAIN = Look()


def render(scene: Scene, rng: random.Random, look: Look = PLAIN) -> Image.Image:
    """The scene as an RGB picture of SIDE x SIDE pixels; `rng` decides what has no meaning."""
    canvas = backdrop(rng, look)
    for item in scene.objects:
        x, y = ((place + 0.5) * CELL + rng.randint(-SHIFT, SHIFT) / SUPERSAMPLING for place in (item.column, item.row))
        draw_object(canvas, item, x, y, near(COLOURS[item.colour], SHADE, rng), look)
    for item in scene.objects:
        print_word(canvas, item.word, (item.column + 0.5) * CELL, (item.row + 1) * CELL - 1)
    return _photograph(canvas, look)


def backdrop(rng: random.Random, look: Look = PLAIN) -> Image.Image:
    grey = rng.choice(GREYS)
    canvas = Image.new("RGB", (SIDE, SIDE), near((grey, grey, grey), TINT, rng))
    if look.background is Background.striped:
        other = near((grey - 30, grey - 30, grey - 30), TINT, rng)
        for left in range(rng.randrange(-STRIPE, STRIPE), SIDE, 2 * STRIPE):
            canvas.paste(other, (left, 0, left + STRIPE, SIDE))
    return canvas


def draw_object(canvas: Image.Image, item: Object, x: float, y: float, colour: Colour, look: Look = PLAIN) -> None:
    """Its shape around (x, y), in pixels from the canvas' upper left corner; rounded to quarters of a pixel."""
    column, row = round(x * SUPERSAMPLING), round(y * SUPERSAMPLING)
    mask = _stamp(item.shape, item.size, column % SUPERSAMPLING, row % SUPERSAMPLING, look.outline)
    corner = (column // SUPERSAMPLING - STAMP // 2, row // SUPERSAMPLING - STAMP // 2)
    canvas.paste(colour, corner, mask)


@cache
def _stamp(shape: str, size: str, x: int, y: int, outline: bool) -> Image.Image:
    """Coverage of the pixels around a shape whose middle is (x, y) quarters of a pixel off the stamp's middle."""
    side = STAMP * SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for radius, fill in ((SIZES[size], 255), (SIZES[size] - LINE, 0))[: 1 + outline]:
        scaled = SUPERSAMPLING * radius
        draw.polygon(
            [(side / 2 + x + scaled * dx, side / 2 + y + scaled * dy) for dx, dy in OUTLINES[shape]], fill=fill
        )
    return canvas.resize((STAMP, STAMP), Image.Resampling.BOX)


def _photograph(canvas: Image.Image, look: Look) -> Image.Image:
    if look.crop:
        left, top = (CELL * first for first in look.crop)
        box = (left, top, left + VIEW * CELL, top + VIEW * CELL)
        canvas = canvas.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return canvas.filter(ImageFilter.GaussianBlur(look.blur)) if look.blur else canvas


def near(colour: Colour, distance: int, rng: random.Random) -> Colour:
    """The colour with every channel moved by at most `distance`."""
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
