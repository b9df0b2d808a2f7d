"""Attention as colour over a picture: the same in files and on pages."""

from __future__ import annotations

import torch
from PIL import Image, ImageOps
from torch import Tensor

MORE, LESS = (214, 78, 16), (24, 92, 204)  # what is positive, and what is negative (of a difference)
OPAQUE = 0.85  # of a patch at the end of the scale: the picture stays to be seen
PALE = 0.45  # how far the picture under a map is from white


def heat(values: Tensor, scale: float) -> Image.Image:
    """(rows, columns) as an RGBA picture of one pixel a patch: clear at 0, nearly opaque at `scale` and beyond."""
    strength = (values.abs() / scale).clamp(max=1) if scale > 0 else torch.zeros_like(values)
    colours = torch.where((values < 0)[..., None], torch.tensor(LESS), torch.tensor(MORE))  # (rows, columns, 3)
    alpha = (strength * OPAQUE * 255).round()[..., None]
    return Image.fromarray(torch.cat((colours, alpha), dim=-1).to(torch.uint8).numpy(), "RGBA")


def over(picture: Image.Image, values: Tensor, scale: float) -> Image.Image:
    """The map on the picture, stretched to it as the picture was squeezed for the model; patches keep their edges."""
    canvas = picture.convert("RGBA")
    canvas.alpha_composite(heat(values, scale).resize(picture.size, Image.Resampling.NEAREST))
    return canvas.convert("RGB")


def pale(picture: Image.Image) -> Image.Image:
    """Light and without colour, so that the colours over it are the map's."""
    grey = ImageOps.grayscale(picture).convert("RGB")
    return Image.blend(Image.new("RGB", grey.size, (255, 255, 255)), grey, PALE)


def largest(values: Tensor) -> float:
    """The end of a scale that fits these maps."""
    return float(values.abs().max())
