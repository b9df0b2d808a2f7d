"""RandAugment as LAVIS draws it for its FlanT5 models (PAPER C.4): ten operations of Pillow on the resized picture.

Positions are counted as OpenCV does, whose pixels lie at whole numbers. At LAVIS' level of 5 the factor of brightness
and sharpness is 0.1 + 1.8 * 5 / 10 = 1, so these two change nothing, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageEnhance, ImageOps

MAX_LEVEL = 10
APPLIED = 0.5  # share of the drawn operations that are carried out
SHEAR, TRANSLATION, ROTATION = 0.3, 10.0, 30.0  # at the highest level: slope, pixels, degrees
GREY = (128, 128, 128)  # of what lies outside the picture
NUMBERS = 3  # of [0, 1) for each operation

Picture = Image.Image
Operation = Callable[[Picture, float], Picture]  # the strength in [-1, 1]


def rand_augment(picture: Picture, level: int, u: Sequence[float]) -> Picture:
    """One operation for every NUMBERS of `u`: which, whether at all, and with which sign; with replacement."""
    operations = list(OPERATIONS.values())
    for which, whether, sign in zip(u[0::NUMBERS], u[1::NUMBERS], u[2::NUMBERS], strict=True):
        if whether < APPLIED:
            strength = level / MAX_LEVEL
            picture = operations[int(which * len(operations))](picture, strength if sign < 0.5 else -strength)
    return picture


def warp(picture: Picture, a: float, b: float, c: float, d: float, e: float, f: float) -> Picture:
    """What stands at (x, y) comes from (ax + by + c, dx + ey + f), bilinear, GREY from outside."""
    centred = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)  # Pillow's pixels lie at halves
    method, filter = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return picture.transform(picture.size, method, centred, filter, fillcolor=GREY)


def rotate(picture: Picture, strength: float) -> Picture:
    """Counter-clockwise about (W / 2, H / 2)."""
    angle = math.radians(strength * ROTATION)
    cos, sin, x, y = math.cos(angle), math.sin(angle), picture.width / 2, picture.height / 2
    return warp(picture, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _factor(strength: float) -> float:
    return 0.1 + 1.8 * abs(strength)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda picture, _: picture,
    "auto_contrast": lambda picture, _: ImageOps.autocontrast(picture),
    "brightness": lambda picture, strength: ImageEnhance.Brightness(picture).enhance(_factor(strength)),
    "sharpness": lambda picture, strength: ImageEnhance.Sharpness(picture).enhance(_factor(strength)),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "shear_x": lambda picture, strength: warp(picture, 1, -SHEAR * strength, 0, 0, 1, 0),
    "shear_y": lambda picture, strength: warp(picture, 1, 0, 0, -SHEAR * strength, 1, 0),
    "translate_x": lambda picture, strength: warp(picture, 1, 0, TRANSLATION * strength, 0, 1, 0),
    "translate_y": lambda picture, strength: warp(picture, 1, 0, 0, 0, 1, TRANSLATION * strength),
    "rotate": rotate,
}
