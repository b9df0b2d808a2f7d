"""Icons: outlined things on nothing. The transparent pixels are black below, so that who forgets them sees it."""

from __future__ import annotations

import random

from PIL import Image, ImageChops

from instructblip.miniature.drawing import SHADE, SHIFT, SUPERSAMPLING, Look, draw_object, near
from instructblip.miniature.scenes import CELL, COLOURS, SIDE, Scene

OUTLINED = Look(outline=True)
WHITE = (255, 255, 255)


def draw_icon(scene: Scene, rng: random.Random) -> Image.Image:
    """An RGBA picture of SIDE x SIDE pixels, meant to lie on white."""
    canvas = Image.new("RGB", (SIDE, SIDE), WHITE)
    for item in scene.objects:
        x, y = ((place + 0.5) * CELL + rng.randint(-SHIFT, SHIFT) / SUPERSAMPLING for place in (item.column, item.row))
        draw_object(canvas, item, x, y, near(COLOURS[item.colour], SHADE, rng), OUTLINED)
    empty = Image.new("RGB", canvas.size, WHITE)
    shown = ImageChops.difference(canvas, empty).convert("L").point(lambda value: 255 if value else 0)
    icon = Image.new("RGBA", canvas.size)
    icon.paste(canvas, mask=shown)
    return icon
