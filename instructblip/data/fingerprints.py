"""What a picture looks like, in 64 bits: a perceptual hash of every picture of a pool, kept beside its shard index."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from instructblip.data.keys import HASHES
from instructblip.data.media import decode
from instructblip.data.shards import MediaPool, index_paths, open_index
from instructblip.files import replacing

SUFFIX = ".phash.npy"
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def fingerprint_pool(folder: Path, workers: int | None, progress: Progress) -> None:
    """Hashes what is not hashed yet, one shard a task. Raises ValueError when the extra `audit` is not installed."""
    _library()
    wanted = [path for path in index_paths(folder) if not _is_current(path)]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for _ in progress(pool.map(_fingerprint_shard, wanted), f"{folder.name}: fingerprints of {len(wanted)} shards"):
            pass


@dataclass(frozen=True)
class Fingerprints:
    """Of a pool's pictures, in the order of its indices; (n,) each. 64 bits of a hash stand for a key or a file."""

    keys: pa.ChunkedArray
    key_hashes: HASHES
    file_hashes: HASHES
    looks: HASHES

    @classmethod
    def read(cls, folder: Path) -> Fingerprints:
        paths = index_paths(folder)
        tables = [open_index(path) for path in paths]
        sides = np.concatenate([np.load(_sidecar(path), allow_pickle=False) for path in paths])
        index = pa.concat_tables(tables)
        return cls(index["key"], index["hash"].to_numpy(), sides[:, 0], sides[:, 1])


def equal(some: HASHES, others: HASHES) -> NDArray[np.int64]:
    """(n, 2) places (in `some`, in `others`) of equal hashes."""
    order = np.argsort(others, kind="stable")
    first = np.searchsorted(others, some, side="left", sorter=order)
    counts = np.searchsorted(others, some, side="right", sorter=order) - first
    left = np.repeat(np.arange(len(some)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([left, order[np.repeat(first, counts) + within]], axis=1).astype(np.int64)


def near(some: HASHES, others: HASHES, distance: int, block: int = 1 << 22) -> NDArray[np.int64]:
    """(n, 2) places (in `some`, in `others`) of hashes that differ in at most `distance` bits."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    step = max(1, block // max(1, len(others)))
    for start in range(0, len(some), step):
        bits = np.bitwise_count(some[start : start + step, None] ^ others[None, :])
        found.append(np.argwhere(bits <= distance) + np.array([start, 0]))
    return np.concatenate(found)


def _fingerprint_shard(index: Path) -> int:
    """Reads the pictures of one index in turn; returns how many."""
    pool, imagehash, table = MediaPool(index.parent, [index]), _library(), open_index(index)
    sides = np.zeros((len(table), 2), dtype=np.uint64)
    sides[:, 0] = [int(digest[:16], 16) for digest in table["sha256"].to_pylist()]
    for row, key in enumerate(table["key"].to_pylist()):
        bits = imagehash.phash(decode(pool.read(key))).hash  # (8, 8) bool
        sides[row, 1] = np.packbits(bits).view(">u8")[0]
    with replacing(_sidecar(index)) as temporary, temporary.open("wb") as file:
        np.save(file, sides, allow_pickle=False)
    return len(sides)


def _is_current(index: Path) -> bool:
    """A shard is never rewritten, so its hashes stay; a foreign or cut file is made again."""
    try:
        return len(np.load(_sidecar(index), allow_pickle=False)) == len(open_index(index))
    except (OSError, ValueError, EOFError):
        return False


def _sidecar(index: Path) -> Path:
    return index.with_name(index.stem + SUFFIX)


def _library() -> Any:
    try:
        import imagehash
    except ImportError as error:
        raise ValueError("the audit needs ImageHash: pip install 'instructblip[audit]'") from error
    return imagehash
