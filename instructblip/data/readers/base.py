"""What every reader shares: the rows it yields, what it is told, what it refuses, and how COCO names its pictures."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.data.sample import TURNS, Form, MediaRef, Sample

CLASSES = 2  # of the vocabularies a label is a class of: yes and no, true and false
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file can hold


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
        """Raises ValueError for an id that is neither a text nor a whole number."""
        if isinstance(source_id, bool) or not isinstance(source_id, str | int):
            raise ValueError(f"id {source_id!r} is neither a text nor a whole number")
        _require_text(str(source_id), "id")
        return f"{self.dataset}/{self.split}/{source_id}"

    def sample(self, source_id: Any, media: MediaRef, **fields: Any) -> Sample:
        """Raises ValueError naming the row and the value when a field is not of the kind a Sample holds."""
        sample = Sample(self.uid(source_id), self.dataset, self.split, self.form, (media,), **fields)
        try:
            _require_kinds(sample)
        except ValueError as error:
            raise ValueError(f"{sample.uid}: {error}") from error
        return sample


Reader = Callable[[Sequence[Path], Context], Iterator[Sample | Drop]]


def _require_kinds(sample: Sample) -> None:
    """Annotations are not typed: a null or a number for a text would be taught and scored as one."""
    for name, text in _texts(sample):
        _require_text(text, name)
    if sample.meta and SURROGATE.search(json.dumps(sample.meta, ensure_ascii=False)):
        raise ValueError(f"facts {sample.meta!r} are no valid Unicode")
    gold, items = sample.gold, sample.candidates.items if sample.candidates else ()
    if gold is not None and (type(gold) is not int or not 0 <= gold < (len(items) or CLASSES)):
        raise ValueError(f"the right one is {gold!r}, which numbers none of the candidates")


def _texts(sample: Sample) -> Iterator[tuple[str, Any]]:
    """What must be a text, and what it is."""
    for ref in sample.media:
        yield "picture", ref.key
        yield "picture", ref.key if ref.relpath is None else ref.relpath
    for name, value in sample.slots.items():
        parts = value if name == "ocr" else itertools.chain(*value) if name in TURNS else [value]
        yield from ((name, part) for part in parts)
    for answer in sample.answers:
        yield "answer", answer.text
        yield "answer", answer.text if answer.text_alt is None else answer.text_alt
        yield from (("confidence", mark) for mark in answer.confidence)
    for item in sample.candidates.items if sample.candidates else ():
        yield "candidate", item


def _require_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, not a text")
    if not value.isascii() and SURROGATE.search(value):
        raise ValueError(f"{name} is {value!r}, which is no valid Unicode")


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
