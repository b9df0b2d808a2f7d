"""One embedded world: its seed and sizes, the pictures every dataset draws on, and how files are written."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from instructblip.miniature.albums import ALBUMS, Picture, Sizes, pictures
from instructblip.miniature.drawing import render
from instructblip.miniature.scenes import Role


@dataclass(frozen=True)
class World:
    """Everything a writer may ask for is a function of (seed, sizes) and of the name it asks by."""

    seed: int
    sizes: Sizes
    only: Role | None = None  # of every scene, in place of what its split has

    def rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")

    def pictures(self, album: str) -> list[Picture]:
        return _pictures(album, self.seed, self.sizes, self.only)

    def role(self, split: Role) -> Role:
        return self.only or split

    def encoded(self, album: str, picture: Picture) -> bytes:
        """The picture's file."""
        rng = self.rng(f"look/{ALBUMS[album].pool}/{picture.id}")
        return encode(render(picture.scene, rng, picture.look), PurePosixPath(picture.file).suffix)

    def draw(self, tree: Path, album: str) -> None:
        """Writes an album's pictures where its pool has them: `tree/<pool>/<file>`."""
        for picture in self.pictures(album):
            file = tree / ALBUMS[album].pool / picture.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.encoded(album, picture))


_pictures = cache(pictures)


def encode(image: Image.Image, suffix: str = ".jpg") -> bytes:
    """At 48 pixels subsampled chroma would bleed into the neighbouring cell, so JPEG files have none."""
    file = BytesIO()
    if suffix == ".jpg":
        image.save(file, "JPEG", quality=95, subsampling=0)
    else:
        image.save(file, suffix[1:].upper())
    return file.getvalue()


def write_json(file: Path, value: Any) -> None:
    write_lines(file, [value])


def write_lines(file: Path, rows: Iterable[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
