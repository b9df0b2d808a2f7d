"""A split divided over machines: which rows are whose, and the parts joined into what an undivided run writes.

A pattern's files are dealt in blocks. The rows of other splits are dealt by the hash of their first picture's key, so
that rows which share a picture share a part, and no picture is stored by two. Each part has folders of its own
(`part-003-of-064`) among the tables and in the media pool, with their own locks, manifest and shard numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from instructblip.data.keys import key_hash
from instructblip.data.readers.base import Drop
from instructblip.data.readers.registry import read, sources
from instructblip.data.sample import Sample
from instructblip.recipes import Recipe

FILES = 1 << 40  # rows a part of files may have: numbers of the next part begin there
Row = tuple[int, Sample | Drop]


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, counted from 0; None is all of it."""

    number: int | None = None
    of: int = 1

    def __post_init__(self) -> None:
        if self.number is not None and not 0 <= self.number < self.of:
            raise ValueError(f"part={self.number}: parts of {self.of} are numbered 0 to {self.of - 1}")

    @property
    def whole(self) -> bool:
        return self.number is None

    def within(self, folder: Path) -> Path:
        return folder if self.number is None else folder / f"part-{self.number:03d}-of-{self.of:03d}"

    def files(self, recipe: Recipe, split: str, raw: Path) -> list[Path]:
        """The official files this part reads."""
        found = sources(recipe, split, raw)
        if self.number is None or not by_file(recipe, split):
            return found
        return found[self.number * len(found) // self.of : (self.number + 1) * len(found) // self.of]

    def rows(self, recipe: Recipe, split: str, raw: Path) -> Iterator[Row]:
        """This part's rows, numbered so that sorting those of all parts gives the undivided order."""
        if self.number is None or not by_file(recipe, split):
            yield from (row for row in enumerate(read(recipe, split, raw)) if self._holds(row[1]))
        elif files := self.files(recipe, split, raw):
            yield from enumerate(read(recipe, split, raw, files), start=self.number * FILES)

    def _holds(self, item: Sample | Drop) -> bool:
        key = item.uid if isinstance(item, Drop) else item.media[0].key
        return self.number is None or key_hash(key) % self.of == self.number


def by_file(recipe: Recipe, split: str) -> bool:
    """Whether a split is dealt by files: it is one pattern, with nothing to be read beside."""
    facts = recipe.split(split)
    return len(facts.files) == 1 and not facts.optional and bool(set("*?[") & set(facts.files[0]))
