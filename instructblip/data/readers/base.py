"""What every reader shares: the rows it yields, what it is told, and how COCO names its pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.data.sample import Form, MediaRef, Sample


@dataclass(frozen=True)
class Drop:
    """A source row that became no Sample."""

    uid: str
    reason: str


@dataclass(frozen=True)
class Context:
    """What a reader must know beside its files."""

    dataset: str
    split: str
    pool: str
    form: Form
    select: tuple[str, ...]

    def uid(self, source_id: Any) -> str:
        return f"{self.dataset}/{self.split}/{source_id}"

    def sample(self, source_id: Any, media: MediaRef, **fields: Any) -> Sample:
        return Sample(self.uid(source_id), self.dataset, self.split, self.form, (media,), **fields)


Reader = Callable[[Sequence[Path], Context], Iterator[Sample | Drop]]


def image_id(file_name: str) -> int:
    """COCO's integer id from a 2014 or 2017 file name."""
    found = re.fullmatch(r"(?:COCO_\w+_)?(\d{12})\.jpg", file_name)
    if not found:
        raise ValueError(f"{file_name!r} is not a COCO file name")
    return int(found.group(1))


def coco(context: Context, key: int, file_name: str) -> MediaRef:
    """A COCO picture; 2014 names carry their folder: COCO_train2014_000000000009.jpg lies in train2014/."""
    folder = re.match(r"COCO_(\w+)_\d", file_name)
    return MediaRef(context.pool, str(key), relpath=f"{folder.group(1)}/{file_name}" if folder else file_name)
