"""Which pictures and texts a training split shares with an evaluation split: by key, by file, by look.

Two policies follow. `paper`: official training splits, whatever they share (arXiv 2305.06500, section 2.1 asks that
no evaluation data be trained on). `strict`: also drop training rows whose picture is evaluated.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructblip.data.keys import HASHES, key_hash
from instructblip.data.leakage.fingerprints import SIDE, Fingerprints, equal, near, same_colours
from instructblip.data.sample import Sample
from instructblip.data.tables import Table

INTEGERS = NDArray[np.int64]
KINDS = ("key", "file", "look")  # how two pictures are the same, the surest first
ASKED = ("question", "statement", "instruction")


@dataclass(frozen=True)
class Shown:
    """A split as the audit sees it: picture `pictures[i]` and text `texts[i]` belong to row `rows[i]`."""

    name: str  # recipe/split
    size: int
    pictures: INTEGERS  # (n,) places in the catalogue
    picture_rows: INTEGERS  # (n,)
    texts: HASHES  # (m,) of what is asked, or of each caption
    text_rows: INTEGERS  # (m,)


@dataclass(frozen=True)
class Catalogue:
    """All pictures of several pools, numbered through."""

    pools: Mapping[str, Fingerprints]

    @property
    def offsets(self) -> dict[str, int]:
        sizes = np.cumsum([0, *(len(pool.looks) for pool in self.pools.values())])
        return dict(zip(self.pools, sizes.tolist(), strict=False))

    def places(self, pool: str, key_hashes: HASHES) -> INTEGERS:
        """Numbers of pictures by their keys' hashes; every key is in the pool, as it was prepared."""
        known = self.pools[pool].key_hashes
        order = np.argsort(known, kind="stable")
        found = order[np.searchsorted(known, key_hashes, sorter=order).clip(0, len(known) - 1)]
        assert (known[found] == key_hashes).all(), f"a table names pictures that pool {pool} does not have"
        return found.astype(np.int64) + self.offsets[pool]

    def looks(self) -> HASHES:
        return np.concatenate([pool.looks for pool in self.pools.values()])

    def files(self) -> HASHES:
        return np.concatenate([pool.file_hashes for pool in self.pools.values()])

    def colours(self, places: INTEGERS) -> NDArray[np.uint8]:
        """(n, 192) of these pictures alone."""
        found = np.empty((len(places), SIDE * SIDE * 3), dtype=np.uint8)
        for name, offset in self.offsets.items():
            inside = (places >= offset) & (places < offset + len(self.pools[name].looks))
            found[inside] = self.pools[name].colours[places[inside] - offset]
        return found


@dataclass(frozen=True)
class Overlap:
    """What one training split shares with one evaluation split."""

    training: str
    evaluation: str
    rows: int  # evaluated
    pictures: dict[str, int]  # kind -> evaluated pictures, each counted under its surest kind
    rows_on_shared: int  # evaluated rows that show such a picture
    training_rows: int  # training rows that show one
    texts: int  # evaluated rows whose text also occurs in training
    texts_with_picture: int  # and there with the same picture


def shown(name: str, table: Table, catalogue: Catalogue) -> Shown:
    """Reads a split once."""
    keys: dict[str, list[int]] = defaultdict(list)
    rows: dict[str, list[int]] = defaultdict(list)
    texts: list[int] = []
    text_rows: list[int] = []
    for row in range(len(table)):
        sample = table.sample(row)
        for ref in sample.media:
            keys[ref.pool].append(key_hash(ref.key))
            rows[ref.pool].append(row)
        for text in said(sample):
            texts.append(key_hash(plain_text(text)))
            text_rows.append(row)
    pictures = [catalogue.places(pool, np.array(found, dtype=np.uint64)) for pool, found in keys.items()]
    return Shown(
        name, len(table), _joined(pictures), _joined([np.array(found) for found in rows.values()]),
        np.array(texts, dtype=np.uint64), np.array(text_rows, dtype=np.int64),
    )  # fmt: skip


def said(sample: Sample) -> Iterator[str]:
    """What identifies a row's text: its question, statement or instruction; of a caption row, every caption."""
    asked = [sample.slots[slot] for slot in ASKED if slot in sample.slots]
    yield from asked or [answer.text for answer in sample.answers]


def plain_text(text: str) -> str:
    """Texts are the same when they agree in everything but case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.lower()))


def duplicates(catalogue: Catalogue, trained: INTEGERS, evaluated: INTEGERS, distance: int) -> list[INTEGERS]:
    """For each of KINDS, (n, 2) pairs (evaluated picture, trained picture) that are the same in this way."""
    evaluated, trained = np.unique(evaluated), np.unique(trained)
    both = np.intersect1d(evaluated, trained)
    files, looks = catalogue.files(), catalogue.looks()
    by_file = equal(files[evaluated], files[trained])
    by_look = near(looks[evaluated], looks[trained], distance)
    pairs = [np.stack([evaluated[found[:, 0]], trained[found[:, 1]]], axis=1) for found in (by_file, by_look)]
    coloured = same_colours(*(catalogue.colours(side) for side in pairs[1].T))
    return [np.stack([both, both], axis=1), pairs[0], pairs[1][coloured]]


def overlap(training: Shown, evaluation: Shown, pairs: Sequence[INTEGERS]) -> Overlap:
    """Counts what two splits share, given the duplicates among all pictures."""
    counts: dict[str, int] = {}
    evaluated: INTEGERS = np.zeros(0, dtype=np.int64)
    mine = _between(training, evaluation, pairs)
    for kind, here in zip(KINDS, mine, strict=True):
        fresh = np.setdiff1d(here[:, 0], evaluated)
        counts[kind], evaluated = len(fresh), np.union1d(evaluated, fresh)
    same = np.unique(np.concatenate(mine), axis=0)
    return Overlap(
        training.name, evaluation.name, evaluation.size, counts,
        rows_on_shared=len(np.unique(_rows_showing(evaluation, same[:, 0]))),
        training_rows=len(np.unique(_rows_showing(training, same[:, 1]))),
        texts=len(np.unique(evaluation.text_rows[np.isin(evaluation.texts, training.texts)])),
        texts_with_picture=len(_text_and_picture(training, evaluation, same)),
    )  # fmt: skip


def shared_rows(training: Shown, evaluation: Shown, pairs: Sequence[INTEGERS]) -> INTEGERS:
    """Evaluated rows that show a picture which training shows too: what a clean subset leaves out."""
    shown_twice = np.concatenate(_between(training, evaluation, pairs))[:, 0]
    return np.unique(_rows_showing(evaluation, shown_twice))


def kept_rows(training: Shown, pairs: Sequence[INTEGERS]) -> INTEGERS:
    """Rows of a training split that show no evaluated picture: what policy `strict` leaves."""
    evaluated = np.unique(np.concatenate([found[:, 1] for found in pairs]))
    return np.setdiff1d(np.arange(training.size), _rows_showing(training, evaluated))


def _between(training: Shown, evaluation: Shown, pairs: Sequence[INTEGERS]) -> list[INTEGERS]:
    """Of each kind of duplicates, the pairs with one picture in either split."""
    return [
        found[np.isin(found[:, 0], evaluation.pictures) & np.isin(found[:, 1], training.pictures)] for found in pairs
    ]


def _rows_showing(side: Shown, pictures: INTEGERS) -> INTEGERS:
    return side.picture_rows[np.isin(side.pictures, pictures)]


def _text_and_picture(training: Shown, evaluation: Shown, same: INTEGERS) -> set[int]:
    """Evaluated rows that training shows with the same text and the same picture."""
    trained = _texts_of(training, same[:, 1])
    evaluated = _texts_of(evaluation, same[:, 0])
    return {
        row
        for picture, twin in same.tolist()
        for text, rows in evaluated[picture].items()
        if text in trained[twin]
        for row in rows
    }


def _texts_of(side: Shown, pictures: INTEGERS) -> dict[int, dict[int, set[int]]]:
    """picture -> text -> rows that show the one with the other."""
    wanted = np.isin(side.pictures, pictures)
    texts: dict[int, list[int]] = defaultdict(list)
    for row, text in zip(side.text_rows.tolist(), side.texts.tolist(), strict=True):
        texts[row].append(text)
    found: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for picture, row in zip(side.pictures[wanted].tolist(), side.picture_rows[wanted].tolist(), strict=True):
        for text in texts[row]:
            found[picture][text].add(row)
    return found


def _joined(parts: Iterable[Any]) -> INTEGERS:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)
