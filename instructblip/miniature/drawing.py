"""How a scene is drawn. What varies without meaning anything comes from the generator passed to `render`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from instructblip.miniature.scenes import CELL, COLOURS, SIDE, SIZES, Scene

SUPERSAMPLING = 4
SHIFT = 0.8  # pixels an object may lie off the middle of its cell
SHADE = 12  # how far a channel of an object may be from its colour
BACKGROUNDS = range(196, 236)
TINT = 6  # how far a channel of the background may be from grey


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
