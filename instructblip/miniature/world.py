"""One embedded world: its seed and sizes, the pictures every dataset draws on, and how files are written."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from instructblip.miniature.albums import Picture, Sizes, pictures
from instructblip.miniature.drawing import render


@dataclass(frozen=True)
class World:
    """Everything a writer may ask for is a function of (seed, sizes) and of the name it asks by."""

    seed: int
    sizes: Sizes

    def rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")

    def pictures(self, album: str) -> list[Picture]:
        return _pictures(album, self.seed, self.sizes)

    def draw(self, folder: Path, album: str) -> None:
        """Writes an album's pictures where its pool has them."""
        for picture in self.pictures(album):
            file = folder / picture.folder / picture.file_name
            file.parent.mkdir(parents=True, exist_ok=True)
            # at 48 pixels subsampled chroma would bleed into the neighbouring cell
            render(picture.scene, self.rng(f"look/{picture.id}")).save(file, quality=95, subsampling=0)


_pictures = cache(pictures)


def write_json(file: Path, value: Any) -> None:
    write_lines(file, [value])


def write_lines(file: Path, rows: Iterable[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
