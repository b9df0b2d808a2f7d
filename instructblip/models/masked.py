"""Masked patch prediction: a vision encoder that learns is shown part of a picture and tells the pixels of the rest.

As in SimMIM (arXiv 2111.09886), but hidden patches have the mean colour instead of a learned token, so that any encoder
of `transformers` can be taught. N pictures, P patches, S image size, V vision width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instructblip.models.vision import VisionEncoder


class MaskedPatches(nn.Module):
    """The linear head that reads pixels off image tokens."""

    def __init__(self, vision: VisionEncoder) -> None:
        super().__init__()
        self.patch_size = int(vision.encoder.config.patch_size)
        self.grid = vision.grid
        self.patches = self.grid[0] * self.grid[1]  # P
        self.head = nn.Linear(vision.width, 3 * self.patch_size**2)

    def forward(self, vision: VisionEncoder, pixel_values: Tensor, hidden: Tensor) -> Tensor:
        """(N,) mean squared error over the patches that are `hidden` (N, P), of normalised pixels (N, 3, S, S)."""
        size = self.patch_size
        patches = hidden.unflatten(1, self.grid)  # (N, S / size, S / size)
        covered = patches.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, None]  # (N, 1, S, S)
        tokens = vision(pixel_values.masked_fill(covered, 0.0))[:, -self.patches :]  # (N, P, V), CLS left out
        pixels = F.unfold(pixel_values, size, stride=size).transpose(1, 2)  # (N, P, 3 * size * size)
        error = (self.head(tokens) - pixels).square().mean(-1)  # (N, P)
        return (error * hidden).sum(1) / hidden.sum(1).clamp(min=1)
