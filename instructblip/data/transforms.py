"""Pictures to pixels: uint8 until the device, where the vision encoder normalises them.

S is the image size. Crop, flip and RandAugment come from the stream's seed, so they are the same on every rank and
after a resume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from instructblip.config.data import TransformsConfig
from instructblip.data import keyed
from instructblip.data.augment import NUMBERS, rand_augment

RATIO = (3 / 4, 4 / 3)  # width to height of a random crop (torchvision's default, which LAVIS keeps)
TRIES = 10
Box = tuple[int, int, int, int]
Picture = Image.Image | NDArray[np.uint8]  # RGB, (H, W, 3)


def training_pixels(picture: Picture, size: int, config: TransformsConfig, seed: int) -> Tensor:
    """Random resized crop, flip and RandAugment (PAPER C.4), bicubic: uint8 (3, S, S)."""
    drawn = 1 + 4 * TRIES
    flip, *u = keyed.uniform(seed, np.arange(drawn + NUMBERS * config.rand_augment, dtype=np.uint64)).tolist()
    pixels = np.asarray(picture)
    left, top, right, bottom = random_box(pixels.shape[1], pixels.shape[0], config.crop_scale, u[: 4 * TRIES])
    resized = resize(pixels[top:bottom, left:right], size)
    if flip < config.flip:
        resized = resized.flip(-1)
    return augmented(resized, config.rand_augment_level, u[4 * TRIES :]) if config.rand_augment else resized


def evaluation_pixels(picture: Picture, size: int) -> Tensor:
    """The whole picture squashed to S x S, bicubic, no crop (LAVIS blip_image_eval): uint8 (3, S, S)."""
    return resize(np.asarray(picture), size)


def augmented(pixels: Tensor, level: int, u: Sequence[float]) -> Tensor:
    """RandAugment on uint8 (3, S, S)."""
    picture = rand_augment(Image.fromarray(pixels.permute(1, 2, 0).numpy()), level, u)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def resize(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """uint8 (H, W, 3) to (3, S, S) as Pillow's bicubic resize, at most 2 levels apart, in about a quarter of its time.

    Two passes, each rounded and clipped to a byte, the width first: so Pillow does up to 12, and so LAVIS' pictures
    were made. Pillow 13 begins with the height where that shortens more than twice as much.
    """
    height, width, _ = pixels.shape
    writable = pixels if pixels.flags.writeable else pixels.copy()  # torch knows no other
    tensor = torch.from_numpy(writable).permute(2, 0, 1)[None]  # channels last, which torch resizes fastest
    if (height, width) != (size, size):
        tensor = interpolate(tensor, (size, size), mode="bicubic", antialias=True)
    return tensor[0].contiguous()


def random_box(width: int, height: int, scale: Sequence[float], u: Sequence[float]) -> Box:
    """A crop of `scale` of the area and an aspect ratio in RATIO, as torchvision's RandomResizedCrop draws it.

    Up to TRIES draws (four numbers of `u` each) until one fits into the picture; else the largest centred crop whose
    ratio is in RATIO, which is the whole of most pictures.
    """
    for area, ratio, x, y in zip(*[iter(u)] * 4, strict=False):
        size = width * height * (scale[0] + area * (scale[1] - scale[0]))
        aspect = math.exp(math.log(RATIO[0]) + ratio * (math.log(RATIO[1]) - math.log(RATIO[0])))
        w, h = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
