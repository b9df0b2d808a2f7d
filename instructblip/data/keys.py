"""Sets of keys that stay small: 64-bit hashes in sorted arrays, eight bytes a key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

HASHES = NDArray[np.uint64]


def key_hash(key: str) -> int:
    """64 bits of a key's hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def hashes(keys: Iterable[str]) -> HASHES:
    return np.fromiter((key_hash(key) for key in keys), dtype=np.uint64)


class KeySet:
    """Keys known by their hash. Two of 14 million keys share one with a chance of 1 in 190,000."""

    def __init__(self, initial: HASHES | None = None) -> None:
        self._runs: list[HASHES] = []  # each sorted, without doubles, more than twice the size of the next
        if initial is not None and len(initial):
            self._runs.append(np.unique(initial))

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def __contains__(self, key: str) -> bool:
        return bool(self.holds(hashes([key]))[0])

    def holds(self, wanted: HASHES) -> NDArray[np.bool_]:
        """(n,) which of the hashes are in the set."""
        found = np.zeros(len(wanted), dtype=bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, wanted), len(run) - 1)
            found |= run[place] == wanted
        return found

    def add(self, new: HASHES) -> HASHES:
        """Adds the hashes; returns those that were in the set before, or came twice."""
        values, counts = np.unique(new, return_counts=True)
        known = self.holds(values)
        fresh = values[~known]
        if len(fresh):
            self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort()
            self._runs.append(merged)
        return values[known | (counts > 1)]

    def count_missing(self, other: KeySet) -> int:
        """How many keys of `other` are not in this set."""
        return sum(int((~self.holds(run)).sum()) for run in other._runs)
