"""A map's colours stand on the patches they are of."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from instructblip.evaluation.pages.maps import heat, largest, over, pale


def test_colour_stands_in_the_planted_cell_and_nowhere_else() -> None:
    planted = torch.zeros(3, 4)
    planted[2, 1] = 0.5
    drawn = np.asarray(over(Image.new("RGB", (80, 30), (200, 200, 200)), planted, scale=0.5)).astype(int)
    changed = np.abs(drawn - 200).sum(-1) > 0
    assert changed[20:, 20:40].all() and changed.sum() == 10 * 20
    assert drawn[25, 30, 0] > drawn[25, 30, 2] + 100


def test_signs_scale_and_nothing() -> None:
    values = torch.tensor([[0.2, -0.2, 0.1, 0.0, 9.0]])
    pixels = np.asarray(heat(values, scale=0.2)).astype(int)[0]  # (5, RGBA)
    alpha = pixels[:, 3]
    assert alpha[0] == alpha[1] == alpha[4] and abs(alpha[0] - 2 * alpha[2]) <= 1 and alpha[3] == 0
    assert pixels[0, 0] > pixels[0, 2] and pixels[1, 2] > pixels[1, 0]
    assert not np.asarray(heat(torch.zeros(2, 2), scale=0.0))[..., 3].any()
    assert largest(torch.tensor([0.1, -0.3])) == float(torch.tensor(0.3))


def test_the_picture_below_has_no_colour_and_is_light() -> None:
    under = np.asarray(pale(Image.new("RGB", (2, 2), (255, 0, 0))))
    assert under[0, 0].min() == under[0, 0].max() > 128
