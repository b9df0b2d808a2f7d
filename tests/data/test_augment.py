"""RandAugment: every operation against its formula on arrays, the draws, and the strengths of LAVIS' level."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from instructblip.config.data import TransformsConfig
from instructblip.data.augment import OPERATIONS, rand_augment
from instructblip.data.transforms import training_pixels

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(20, 200, (40, 50, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
PIXELS = np.asarray(NOISE).astype(float)  # (40, 50, 3)
Formula = Callable[[float], np.ndarray]


def gathered(x: Callable[..., np.ndarray], y: Callable[..., np.ndarray]) -> np.ndarray:
    """The picture at (x, y) of each pixel, bilinear between whole numbers; grey outside."""
    height, width, _ = PIXELS.shape
    row, column = np.mgrid[:height, :width].astype(float)
    at_x, at_y = x(column, row), y(column, row)
    left, top = np.floor(at_x).astype(int), np.floor(at_y).astype(int)
    out = np.zeros_like(PIXELS)
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - dx - (at_x - left)) * np.abs(1 - dy - (at_y - top))
        out += weight[..., None] * PIXELS[np.clip(top + dy, 0, height - 1), np.clip(left + dx, 0, width - 1)]
    inside = np.min([at_x + 0.5, width - 0.5 - at_x, at_y + 0.5, height - 0.5 - at_y], axis=0)
    out[inside < 0] = 128
    out[np.abs(inside) < 1e-3] = np.nan  # on the very edge rounding decides
    return out


def stretched(_: float) -> np.ndarray:
    low, high = PIXELS.min(axis=(0, 1)), PIXELS.max(axis=(0, 1))
    return (PIXELS - low) * 255 / (high - low)


def equalized(_: float) -> np.ndarray:
    out = np.empty_like(PIXELS)
    for channel in range(3):
        counts = np.bincount(PIXELS[..., channel].astype(int).ravel(), minlength=256)
        step = counts[counts > 0][:-1].sum() // 255
        table = np.clip((step // 2 + np.cumsum(counts) - counts) // step, 0, 255)
        out[..., channel] = table[PIXELS[..., channel].astype(int)]
    return out


def sharpened(strength: float) -> np.ndarray:
    weights = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = PIXELS.copy()
    inner = sum(weights[i, j] * PIXELS[i : i + 38, j : j + 48] for i in range(3) for j in range(3))
    smooth[1:-1, 1:-1] = np.round(inner)
    return np.clip(smooth + (0.1 + 1.8 * abs(strength)) * (PIXELS - smooth), 0, 255)


def rotated(strength: float) -> np.ndarray:
    angle = math.radians(30 * strength)
    cos, sin = math.cos(angle), math.sin(angle)
    return gathered(
        lambda x, y: cos * (x - 25) - sin * (y - 20) + 25, lambda x, y: sin * (x - 25) + cos * (y - 20) + 20
    )


FORMULAS: dict[str, Formula] = {
    "identity": lambda _: PIXELS,
    "auto_contrast": stretched,
    "brightness": lambda strength: np.clip(PIXELS * (0.1 + 1.8 * abs(strength)), 0, 255),
    "sharpness": sharpened,
    "equalize": equalized,
    "shear_x": lambda strength: gathered(lambda x, y: x - 0.3 * strength * y, lambda x, y: y),
    "shear_y": lambda strength: gathered(lambda x, y: x, lambda x, y: y - 0.3 * strength * x),
    "translate_x": lambda strength: gathered(lambda x, y: x + 10 * strength, lambda x, y: y),
    "translate_y": lambda strength: gathered(lambda x, y: x, lambda x, y: y + 10 * strength),
    "rotate": rotated,
}


@pytest.mark.parametrize("strength", [0.5, -0.5, 1.0, -0.3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_its_formula_says(name: str, strength: float) -> None:
    assert set(FORMULAS) == set(OPERATIONS) and len(OPERATIONS) == 10
    got = np.asarray(OPERATIONS[name](NOISE, strength)).astype(float)
    off = np.abs(got - FORMULAS[name](strength))
    assert np.isnan(off).mean() < 0.1
    off = off[~np.isnan(off)]
    assert got.shape == PIXELS.shape and off.max() <= 1.01, f"{off.max()} levels off"
    assert name in ("identity", "brightness", "sharpness") or np.abs(got - PIXELS).max() > 20


def test_at_lavis_level_brightness_and_sharpness_change_nothing() -> None:
    for name in ("brightness", "sharpness"):
        assert np.array_equal(np.asarray(OPERATIONS[name](NOISE, 5 / 10)), np.asarray(NOISE))
        assert not np.array_equal(np.asarray(OPERATIONS[name](NOISE, 9 / 10)), np.asarray(NOISE))


def test_numbers_decide_operation_whether_and_sign() -> None:
    shift = (list(OPERATIONS).index("translate_x") + 0.5) / 10
    for sign, strength in ((0.2, 0.5), (0.8, -0.5)):
        moved = rand_augment(NOISE, 5, [shift, 0.4, sign])
        assert np.array_equal(np.asarray(moved), np.asarray(OPERATIONS["translate_x"](NOISE, strength)))
    assert rand_augment(NOISE, 5, [shift, 0.6, 0.2]) is NOISE
    twice = rand_augment(NOISE, 5, [shift, 0.4, 0.2, shift, 0.4, 0.2])
    assert np.array_equal(np.asarray(twice)[:, :40], np.asarray(NOISE)[:, 10:])


def test_half_of_the_drawn_operations_are_carried_out() -> None:
    """And three of the ten change nothing at this level, so (1 - 0.5 * 0.7)^2 = 42 % of pictures stay as they are."""
    plain, drawn = TransformsConfig(), TransformsConfig(rand_augment=2)
    same = [
        torch.equal(training_pixels(NOISE, 32, plain, seed), training_pixels(NOISE, 32, drawn, seed))
        for seed in range(1000)
    ]
    assert 0.37 < np.mean(same) < 0.48


def test_rand_augment_comes_after_the_same_crop_and_flip() -> None:
    plain, drawn = TransformsConfig(), TransformsConfig(rand_augment=2, rand_augment_level=0)
    for seed in range(30):  # at level 0 the warps move nothing, and brightness and sharpness are the only others
        before, after = training_pixels(NOISE, 32, plain, seed), training_pixels(NOISE, 32, drawn, seed)
        assert np.corrcoef(before.flatten(), after.flatten())[0, 1] > 0.8
        assert torch.equal(after, training_pixels(NOISE, 32, drawn, seed))
