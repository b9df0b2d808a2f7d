"""Pixels: Pillow's bicubic, crops within their bounds, and why a flip is off in the miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instructblip.config.data import TransformsConfig
from instructblip.data.media import decode
from instructblip.data.transforms import evaluation_pixels, random_box, training_pixels

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))


def levels_off(image: Image.Image, size: int) -> np.ndarray:
    """How far each byte of our resize is from Pillow's."""
    pixels = evaluation_pixels(image, size)
    assert pixels.shape == (3, size, size) and pixels.dtype is torch.uint8 and pixels.is_contiguous()
    narrow = image.resize((size, image.height), Image.Resampling.BICUBIC)  # first, as in one call of Pillow up to 12
    expected = np.asarray(narrow.resize((size, size), Image.Resampling.BICUBIC))
    return np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - expected)


@pytest.mark.parametrize("size", [32, 48, 224])
@pytest.mark.parametrize(
    ("width", "height"),
    [
        (90, 60),
        (60, 90),
        (60, 300),
        (300, 60),
        (400, 560),
        (400, 590),
        (48, 48),
        (48, 90),
        (100, 223),
        (100, 226),
        (7, 5),
    ],
)
def test_a_picture_is_squashed_as_pillow_does(width: int, height: int, size: int) -> None:
    """Up and down, in portraits, landscapes and on both sides of where Pillow 13 turns the order of its passes."""
    noise = np.random.default_rng(width * height).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.LANCZOS)
    off = levels_off(image, size)
    assert off.max() <= 2 and off.mean() < 0.02
    assert width != size or height != size or not off.any()


def test_real_photographs_are_squashed_as_pillow_does(real: Path) -> None:
    paths = sorted(path for path in (real / "images").rglob("*") if path.suffix in {".jpg", ".png"})
    assert len(paths) > 100
    rng = np.random.default_rng(0)
    for path in paths:
        image = decode(path.read_bytes())
        for shown in (image, image.crop(random_box(image.width, image.height, [0.1, 1.0], rng.random(40).tolist()))):
            off = levels_off(shown, 224)
            assert off.max() <= 2 and off.mean() < 0.02, path


def test_crops_keep_their_area_and_ratio() -> None:
    rng, areas = np.random.default_rng(0), []
    for _ in range(500):
        left, top, right, bottom = random_box(400, 300, [0.5, 1.0], rng.random(40).tolist())
        assert 0 <= left < right <= 400 and 0 <= top < bottom <= 300
        assert 0.74 < (right - left) / (bottom - top) < 1.35
        areas.append((right - left) * (bottom - top) / 120_000)
    assert 0.49 < min(areas) < 0.52 and max(areas) > 0.9


def test_a_picture_no_crop_fits_into_is_cut_to_the_allowed_ratio() -> None:
    assert random_box(48, 48, [1.0, 1.0], [0.9] * 40) == (0, 0, 48, 48)
    assert random_box(400, 100, [1.0, 1.0], [0.5] * 40) == (133, 0, 266, 100)
    assert random_box(100, 400, [1.0, 1.0], [0.5] * 40) == (0, 133, 100, 266)


def test_the_seed_decides_and_no_augmentation_is_evaluation() -> None:
    first, again, other = (training_pixels(NOISE, 32, TransformsConfig(), seed) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    square, plain = NOISE.resize((64, 64)), TransformsConfig(crop_scale=[1.0, 1.0], flip=0.0)
    assert all(
        torch.equal(training_pixels(square, 32, plain, seed), evaluation_pixels(square, 32)) for seed in range(50)
    )


def test_a_flip_makes_left_right() -> None:
    """Why the miniature's experiment turns flips off: the answer to `where` would be false."""
    image = Image.new("RGB", (48, 48), "white")
    image.paste((255, 0, 0), (0, 16, 16, 32))
    flipped = training_pixels(image, 48, TransformsConfig(crop_scale=[1.0, 1.0], flip=1.0), seed=3)
    redness = flipped[0].float() - flipped[1].float()  # (S, S)
    assert redness[:, 32:].sum() > 100 * redness[:, :16].sum().clamp(min=1)
