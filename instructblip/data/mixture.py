"""The training stream: what a step contains is a pure function of (seed, step), whoever asks.

A group is G consecutive samples of one dataset; a step is batch_size / G whole groups. The group's number decides its
dataset; the dataset's own counter decides everything else (row, wording, answer, crop), so leaving a dataset out does
not change what another one gives. The only state is the number of finished steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from instructblip.choices import Draw
from instructblip.data import keyed

CHUNK = 1 << 20  # groups recounted at a time
INTEGERS = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """Rows by the picture they are about: those of picture i are `order[starts[i] : starts[i + 1]]`."""

    order: INTEGERS  # (rows,)
    starts: INTEGERS  # (pictures + 1,)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, picture: INTEGERS, turn: INTEGERS) -> INTEGERS:
        """(n,) a row of each picture; as the turns go on, all of its rows come round."""
        sizes = self.starts[picture + 1] - self.starts[picture]
        return self.order[self.starts[picture] + turn % sizes]


@dataclass(frozen=True)
class Source:
    """A dataset as the stream sees it; its epochs are of rows, or of `pictures` where several rows share one."""

    recipe: str
    rows: int
    templates: int
    probability: float
    pictures: Pictures | None = None

    @property
    def drawn(self) -> int:
        """How many there are of what an epoch draws once."""
        return self.rows if self.pictures is None else len(self.pictures)


@dataclass(frozen=True, slots=True)
class Pick:
    """One position of the stream, before anything is read."""

    source: int
    row: int
    template: int
    answer: float  # in [0, 1): where on the annotators' votes
    augmentation: int  # 64-bit seed of crop, flip and RandAugment


class Stream:
    """`step(n)` gives the picks of step n. Raises ValueError for sizes that do not fit together.

    With `per_image` above 1 a dataset's permutation is of its pictures, and each drawn one gives so many samples in a
    row, under one crop: rows of a picture that has many come up less often than before, those of one that has few more.
    """

    def __init__(
        self, sources: Sequence[Source], seed: int, batch_size: int, group_size: int, draw: Draw = Draw.random,
        per_image: int = 1,
    ) -> None:  # fmt: skip
        if batch_size % group_size:
            raise ValueError(f"batch_size={batch_size} is not a multiple of group_size={group_size}")
        if per_image < 1 or group_size % per_image:
            raise ValueError(f"group_size={group_size} is not a multiple of per_image={per_image}")
        assert per_image == 1 or all(source.pictures for source in sources)
        if empty := [source.recipe for source in sources if not source.rows]:
            raise ValueError(f"no training rows in {', '.join(empty)}")
        self.sources, self.per_image = list(sources), per_image
        self.seed, self.batch_size, self.group_size = seed, batch_size, group_size
        self.groups_per_step = batch_size // group_size
        p = np.array([source.probability for source in sources])
        self._draw: DatasetDraw = RandomDraw(p, seed) if draw is Draw.random else EvenDraw(p)

    def step(self, number: int) -> list[Pick]:
        first = number * self.groups_per_step
        starts = self._draw.counts_before(first) * self.group_size
        datasets = self._draw.datasets(first, first + self.groups_per_step).tolist()
        picks = {
            source: iter(self._picks(source, int(starts[source]), groups * self.group_size))
            for source, groups in Counter(datasets).items()
        }
        return [pick for source in datasets for pick in islice(picks[source], self.group_size)]

    def drawn(self, steps: int) -> INTEGERS:
        """(D,) samples taken from each dataset in the first `steps` steps: the interval of its permutation."""
        return self._draw.counts_before(steps * self.groups_per_step) * self.group_size

    def _picks(self, source: int, start: int, number: int) -> list[Pick]:
        """What a dataset's counter gives from `start` on."""
        facts = self.sources[source]
        position = np.arange(start, start + number, dtype=np.uint64)
        unit = position // np.uint64(self.per_image)
        rows = np.empty(number, dtype=np.int64)
        for epoch in range(int(unit[0]) // facts.drawn, int(unit[-1]) // facts.drawn + 1):
            inside = unit // np.uint64(facts.drawn) == epoch
            local = unit[inside] - np.uint64(epoch * facts.drawn)
            rows[inside] = keyed.permute(self._key(facts, f"epoch {epoch}"), local, facts.drawn)
        if facts.pictures is not None:
            epochs, slots = unit // np.uint64(facts.drawn), position % np.uint64(self.per_image)
            turns = (epochs * np.uint64(self.per_image) + slots).astype(np.int64)
            rows = facts.pictures.rows(rows, turns)
        templates = keyed.below(self._key(facts, "template"), position, facts.templates)
        answers = keyed.uniform(self._key(facts, "answer"), position)
        augmentations = keyed.mix(self._key(facts, "augmentation"), unit)
        return [
            Pick(source, *fields)
            for fields in zip(rows.tolist(), templates.tolist(), answers.tolist(), augmentations.tolist(), strict=True)
        ]

    def _key(self, source: Source, purpose: str) -> int:
        return keyed.key(self.seed, source.recipe, purpose)


class DatasetDraw(ABC):
    """Which dataset each group is of. Counting recounts, vectorised, from where it last stood."""

    def __init__(self, datasets: int) -> None:
        self._at, self._counts = 0, np.zeros(datasets, dtype=np.int64)

    @abstractmethod
    def datasets(self, first: int, last: int) -> INTEGERS:
        """Dataset of each group in [first, last)."""

    def counts_before(self, group: int) -> INTEGERS:
        """(D,) groups of each dataset among the first `group` groups."""
        if group < self._at:
            self._at, self._counts = 0, np.zeros_like(self._counts)
        while self._at < group:
            last = min(self._at + CHUNK, group)
            self._counts = self._counts + np.bincount(self.datasets(self._at, last), minlength=len(self._counts))
            self._at = last
        return self._counts.copy()


class RandomDraw(DatasetDraw):
    """Independent draws, as the paper."""

    def __init__(self, p: NDArray[np.float64], seed: int) -> None:
        super().__init__(len(p))
        self._edges = np.cumsum(p)[:-1]
        self._key = keyed.key(seed, "dataset")

    def datasets(self, first: int, last: int) -> INTEGERS:
        u = keyed.uniform(self._key, np.arange(first, last, dtype=np.uint64))
        return np.searchsorted(self._edges, u, side="right").astype(np.int64)


class EvenDraw(DatasetDraw):
    """Low discrepancy: after any number n of groups, each dataset has had n p groups, give or take less than one.

    The j-th group (from 0) of a dataset may come once n reaches j / p and is due by (j + 1) / p; of those that may
    come, the one due first does. No date is ever missed (Steiner and Yeomans, Management Science 1993).
    """

    def __init__(self, p: NDArray[np.float64]) -> None:
        super().__init__(len(p))
        self._gap = [1 / share for share in p.tolist()]
        self._may = [(gap, dataset) for dataset, gap in enumerate(self._gap)]  # heap of (due, dataset)
        self._later: list[tuple[float, int]] = []  # heap of (when it may come, dataset)
        self._order = array("H")
        heapify(self._may)

    def datasets(self, first: int, last: int) -> INTEGERS:
        may, later, gap, order = self._may, self._later, self._gap, self._order  # a million turns: local names
        for drawn in range(len(order) + 1, last + 1):
            while later and later[0][0] <= drawn:
                start, dataset = heappop(later)
                heappush(may, (start + gap[dataset], dataset))
            due, dataset = heappop(may)
            order.append(dataset)
            heappush(later, (due, dataset))
        return np.frombuffer(self._order[first:last], dtype=np.uint16).astype(np.int64)


def deal(costs: Sequence[int], ranks: int, micro_batch_size: int) -> list[list[list[int]]]:
    """`[rank][micro-batch]` -> positions of the step, so that ranks cost about the same, and the rows of a micro-batch,
    which are padded to the longest, are of like length.

    Every rank gets the same number of micro-batches; one may be empty when there are fewer samples than places. Which
    samples the step contains does not depend on the deal, and each micro-batch keeps the step's order.
    """
    micros = math.ceil(len(costs) / (ranks * micro_batch_size))
    shares = _shared(range(len(costs)), costs, ranks, micros * micro_batch_size)
    return [_alike(share, costs, micros) for share in shares]


def _alike(positions: Sequence[int], costs: Sequence[int], batches: int) -> list[list[int]]:
    """The positions in `batches` lists of about as many, from the cheapest to the costliest."""
    ordered = sorted(positions, key=lambda position: (costs[position], position))
    bounds = [len(ordered) * batch // batches for batch in range(batches + 1)]
    return [sorted(ordered[first:last]) for first, last in pairwise(bounds)]


def _shared(positions: Iterable[int], costs: Sequence[int], shares: int, most: int) -> list[list[int]]:
    """The positions in `shares` lists of at most `most`: the costliest first, each to the cheapest list so far."""
    lists: list[list[int]] = [[] for _ in range(shares)]
    open_lists = [(0, number) for number in range(shares)]  # heap of (cost, list) with places left
    for position in sorted(positions, key=lambda position: (-costs[position], position)):
        cost, number = heappop(open_lists)
        lists[number].append(position)
        if len(lists[number]) < most:
            heappush(open_lists, (cost + costs[position], number))
    return lists
