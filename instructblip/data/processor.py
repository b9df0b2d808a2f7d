"""Pictures and instructions of any kind to the tensors the model takes; the counterpart of `InstructBlipProcessor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instructblip.data.collate import Collator
from instructblip.data.media import BadMedia, decode
from instructblip.data.transforms import evaluation_pixels

Picture = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
Shown = Picture | Sequence[Picture]  # several: the frames of a clip


@dataclass(frozen=True)
class Processor:
    """`processor(images=, text=)` for one or several pictures (or clips) with one instruction each."""

    collator: Collator
    image_size: int

    def __call__(self, images: Shown | list[Shown], text: str | Sequence[str]) -> dict[str, Tensor]:
        """Keyword arguments of the model's `generate` and `rank`.

        One text with one picture, or lists of equal length. Raises ValueError for an empty instruction, lists of
        different length, and what is no picture.
        """
        texts = [text] if isinstance(text, str) else list(text)
        shown: list[Any] = [images] if isinstance(text, str) else list(cast(Sequence[Any], images))
        if len(shown) != len(texts):
            raise ValueError(f"{len(shown)} pictures for {len(texts)} instructions; give one of each")
        if empty := [number for number, each in enumerate(texts) if not each.strip()]:
            raise ValueError(f"instructions {empty} of {len(texts)} are empty")
        pixels = [self.pixels(each) for each in shown]
        batch = self.collator.prompts(texts, pixels, list(range(len(texts))))
        return {name: tensor for name, tensor in batch.inputs().items() if tensor is not None}

    def pixels(self, shown: Shown) -> Tensor:
        """uint8 (3, S, S), of a list of frames (F, 3, S, S)."""
        if isinstance(shown, list | tuple):
            return torch.stack([self.pixels(frame) for frame in shown])
        return evaluation_pixels(open_picture(shown), self.image_size)


def open_picture(picture: Any) -> Image.Image:
    """An RGB picture from a file, a PIL image, or an array or tensor of uint8, (H, W, 3) or (3, H, W)."""
    if isinstance(picture, str | Path):
        try:
            return decode(Path(picture).read_bytes())
        except (OSError, BadMedia) as error:
            raise ValueError(f"{picture} is no picture that can be read: {error}") from error
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)  # (H, W, 3)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"an array of {array.dtype} {array.shape} is no picture; give uint8 of (H, W, 3) or (3, H, W)")
    return Image.fromarray(np.ascontiguousarray(array))
