"""Keyed randomness: hashes and permutations that are pure functions of (key, position), the same on every machine.

The mixer is splitmix64's finaliser (Steele, Lea, Flood 2014); all arithmetic is modulo 2^64.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
ROUNDS = 4  # of the Feistel network; three already pass as a pseudo-random permutation


def key(*parts: str | int) -> int:
    """A 64-bit key from names and numbers."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def mix(key: int, position: U64) -> U64:
    """64 random bits for each position."""
    with np.errstate(over="ignore"):
        z = (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(key: int, position: U64) -> NDArray[np.float64]:
    """A number in [0, 1) for each position."""
    return (mix(key, position) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(key: int, position: U64, limit: int) -> NDArray[np.int64]:
    """An integer in [0, limit) for each position."""
    return (uniform(key, position) * limit).astype(np.int64)


def permute(key: int, position: U64, size: int) -> NDArray[np.int64]:
    """Each position of [0, size) under the key's permutation: a Feistel network with cycle walking, O(1) memory."""
    assert int(position.max(initial=0)) < size, f"position {position.max()} is not below {size}"
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    out = _feistel(key, position, half)
    while (outside := out >= size).any():
        out[outside] = _feistel(key, out[outside], half)
    return out.astype(np.int64)


def _feistel(key: int, position: U64, half: int) -> U64:
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = position >> shift, position & mask
    for number in range(ROUNDS):
        left, right = right, left ^ (mix((key + number) % 2**64, right) & mask)
    return (left << shift) | right
