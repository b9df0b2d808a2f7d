"""The training stream: what a step contains is a pure function of (seed, step), whoever asks.

A group is G consecutive samples of one dataset; a step is batch_size / G whole groups. The group's number decides its
dataset; the dataset's own counter decides everything else (row, wording, answer, crop), so leaving a dataset out does
not change what another one gives. The only state is the number of finished steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructblip.choices import Draw, Weighting
from instructblip.data import keyed
from instructblip.recipes import Recipe

CHUNK = 1 << 20  # groups recounted at a time
INTEGERS = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """A dataset as the stream sees it."""

    recipe: str
    rows: int
    templates: int
    probability: float


@dataclass(frozen=True, slots=True)
class Pick:
    """One position of the stream, before anything is read."""

    source: int
    row: int
    template: int
    answer: float  # in [0, 1): where on the annotators' votes
    augmentation: int  # 64-bit seed of crop and flip


def probabilities(recipes: Sequence[Recipe], weighting: Weighting, factors: dict[str, float]) -> list[float]:
    """p_d from the official sizes S_d (paper, section 2.3), times hand factors, renormalised.

    The factors correct the balancing, so uniform mixing, the ablation without it, has none.
    """
    if unknown := set(factors) - {recipe.name for recipe in recipes}:
        raise ValueError(f"mixture factors for {sorted(unknown)}, which the mixture does not contain")
    roots = {Weighting.sqrt: 0.5, Weighting.uniform: 0.0, Weighting.proportional: 1.0}
    weights = []
    for recipe in recipes:
        if recipe.sampling is None:
            raise ValueError(f"recipe {recipe.name} has no sampling size, so it cannot be in a mixture")
        factor = 1.0 if weighting is Weighting.uniform else factors.get(recipe.name, 1.0)
        weights.append(recipe.sampling.size ** roots[weighting] * factor)
    return [weight / sum(weights) for weight in weights]


class Stream:
    """`step(n)` gives the picks of step n. Raises ValueError for sizes that do not fit together."""

    def __init__(
        self, sources: Sequence[Source], seed: int, batch_size: int, group_size: int, draw: Draw = Draw.random
    ) -> None:
        if batch_size % group_size:
            raise ValueError(f"batch_size={batch_size} is not a multiple of group_size={group_size}")
        if empty := [source.recipe for source in sources if not source.rows]:
            raise ValueError(f"no training rows in {', '.join(empty)}")
        self.sources = list(sources)
        self.seed, self.batch_size, self.group_size = seed, batch_size, group_size
        self.groups_per_step = batch_size // group_size
        p = np.array([source.probability for source in sources])
        self._draw: RandomDraw | EvenDraw = RandomDraw(p, seed) if draw is Draw.random else EvenDraw(p)

    def step(self, number: int) -> list[Pick]:
        first = number * self.groups_per_step
        counts = self._draw.counts_before(first)
        picks: list[Pick] = []
        for source in self._draw.datasets(first, first + self.groups_per_step):
            picks += self._group(int(source), int(counts[source]) * self.group_size)
            counts[source] += 1
        return picks

    def drawn(self, steps: int) -> INTEGERS:
        """(D,) samples taken from each dataset in the first `steps` steps: the interval of its permutation."""
        return self._draw.counts_before(steps * self.groups_per_step) * self.group_size

    def _group(self, source: int, start: int) -> list[Pick]:
        facts = self.sources[source]
        position = np.arange(start, start + self.group_size, dtype=np.uint64)
        rows = np.empty(self.group_size, dtype=np.int64)
        for epoch in range(start // facts.rows, (start + self.group_size - 1) // facts.rows + 1):
            inside = position // np.uint64(facts.rows) == epoch
            local = position[inside] - np.uint64(epoch * facts.rows)
            rows[inside] = keyed.permute(self._key(facts, f"epoch {epoch}"), local, facts.rows)
        templates = keyed.below(self._key(facts, "template"), position, facts.templates)
        answers = keyed.uniform(self._key(facts, "answer"), position)
        augmentations = keyed.mix(self._key(facts, "augmentation"), position)
        return [
            Pick(source, *fields)
            for fields in zip(rows.tolist(), templates.tolist(), answers.tolist(), augmentations.tolist(), strict=True)
        ]

    def _key(self, source: Source, purpose: str) -> int:
        return keyed.key(self.seed, source.recipe, purpose)


class RandomDraw:
    """Independent draws, as the paper. Counting is a vectorised recount from where it last stood."""

    def __init__(self, p: NDArray[np.float64], seed: int) -> None:
        self._edges = np.cumsum(p)[:-1]
        self._key = keyed.key(seed, "dataset")
        self._at, self._counts = 0, np.zeros(len(p), dtype=np.int64)

    def datasets(self, first: int, last: int) -> INTEGERS:
        """Dataset of each group in [first, last)."""
        u = keyed.uniform(self._key, np.arange(first, last, dtype=np.uint64))
        return np.searchsorted(self._edges, u, side="right").astype(np.int64)

    def counts_before(self, group: int) -> INTEGERS:
        """(D,) groups of each dataset among the first `group` groups."""
        if group < self._at:
            self._at, self._counts = 0, np.zeros_like(self._counts)
        while self._at < group:
            last = min(self._at + CHUNK, group)
            self._counts = self._counts + np.bincount(self.datasets(self._at, last), minlength=len(self._counts))
            self._at = last
        return self._counts.copy()


class EvenDraw:
    """Low discrepancy in closed form: a tree of near-even splits, each of which deals its groups by rounding.

    A node that has n groups gives round(n r) to its left child, r being the left share; the rounding errors about
    halve on the way down, so every dataset stays near its share (at most 1.17 groups off for the paper's sizes).
    """

    def __init__(self, p: NDArray[np.float64]) -> None:
        self._p = p

    def counts_before(self, group: int) -> INTEGERS:
        counts = np.zeros(len(self._p), dtype=np.int64)
        nodes = [(np.argsort(-self._p, kind="stable"), group)]
        while nodes:
            members, total = nodes.pop()
            if len(members) == 1:
                counts[members[0]] = total
                continue
            left, right = _split(members, self._p)
            share = math.fsum(self._p[left]) / math.fsum(self._p[members])
            given = math.floor(total * share + 0.5)
            nodes += [(left, given), (right, total - given)]
        return counts

    def datasets(self, first: int, last: int) -> INTEGERS:
        counts = np.stack([self.counts_before(group) for group in range(first, last + 1)])
        return np.diff(counts, axis=0).argmax(axis=1)


def _split(members: INTEGERS, p: NDArray[np.float64]) -> tuple[INTEGERS, INTEGERS]:
    """Two halves of about the same probability: the largest first, each to the lighter side."""
    left: list[int] = []
    right: list[int] = []
    for member in members:
        side = left if p[left].sum() <= p[right].sum() else right
        side.append(int(member))
    return np.array(left), np.array(right)


def deal(costs: Sequence[int], ranks: int, micro_batch_size: int) -> list[list[list[int]]]:
    """`[rank][micro-batch]` -> positions of the step, so that each micro-batch costs about the same.

    Every rank gets the same number of micro-batches; one may be empty when there are fewer samples than places. Which
    samples the step contains does not depend on the deal, and each micro-batch keeps the step's order.
    """
    per_rank = math.ceil(len(costs) / (ranks * micro_batch_size))
    bins: list[list[int]] = [[] for _ in range(ranks * per_rank)]
    load = [0] * len(bins)
    for position in sorted(range(len(costs)), key=lambda position: -costs[position]):
        free = [number for number in range(len(bins)) if len(bins[number]) < micro_batch_size]
        lightest = min(free, key=lambda number: (load[number], number))
        bins[lightest].append(position)
        load[lightest] += costs[position]
    return [[sorted(bins[rank + micro * ranks]) for micro in range(per_rank)] for rank in range(ranks)]
