"""Pictures to pixels: uint8 until the device, where the vision encoder normalises them.

S is the image size. Crop and flip come from the stream's seed, so they are the same on every rank and after a resume.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instructblip.config import TransformsConfig
from instructblip.data import keyed

RATIO = (3 / 4, 4 / 3)  # of a random crop (LAVIS, torchvision's default)
Box = tuple[int, int, int, int]


def training_pixels(image: Image.Image, size: int, config: TransformsConfig, seed: int) -> Tensor:
    """Random resized crop and flip (PAPER C.4), bicubic: uint8 (3, S, S)."""
    u = keyed.uniform(seed, np.arange(5, dtype=np.uint64)).tolist()
    image = image.crop(random_box(image.width, image.height, config.crop_scale, u))
    if u[4] < config.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return evaluation_pixels(image, size)


def evaluation_pixels(image: Image.Image, size: int) -> Tensor:
    """The whole picture squashed to S x S, bicubic, no crop (LAVIS blip_image_eval): uint8 (3, S, S)."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def random_box(width: int, height: int, scale: list[float], u: list[float]) -> Box:
    """A crop of `scale` of the area and an aspect ratio in RATIO; too wide or high ones are cut to the picture.

    One draw, where torchvision tries ten and falls back to a centre crop: a fixed number of random numbers.
    """
    area = width * height * (scale[0] + u[0] * (scale[1] - scale[0]))
    ratio = math.exp(math.log(RATIO[0]) + u[1] * (math.log(RATIO[1]) - math.log(RATIO[0])))
    w = min(width, max(1, round(math.sqrt(area * ratio))))
    h = min(height, max(1, round(math.sqrt(area / ratio))))
    left, top = int(u[2] * (width - w + 1)), int(u[3] * (height - h + 1))
    return left, top, left + w, top + h
