"""What a picture looks like: a perceptual hash of its shapes and eight by eight colours, kept beside its shard index.

Of 325 photographs no two different ones were nearer than 14 bits; what was recompressed, shrunk to 64 pixels or cut by
2 % stayed within 10, mostly 6. The hash sees grey alone, and simple drawings collide: the colours tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from instructblip.data.keys import HASHES
from instructblip.data.lookup import open_index
from instructblip.data.media import decode
from instructblip.data.shards import MediaPool, index_paths
from instructblip.files import replacing

SUFFIX = ".look.npy"
SIDE = 8  # of the small picture
LEVELS = 32  # a colour of it may be off: at most 28 in recompressed photographs, at least 49 between drawings
SIDECAR = np.dtype([("file", np.uint64), ("look", np.uint64), ("colours", np.uint8, (SIDE * SIDE * 3,))])
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

    key_hashes: HASHES
    file_hashes: HASHES
    looks: HASHES
    colours: NDArray[np.uint8]  # (n, 192)

    @classmethod
    def read(cls, folder: Path) -> Fingerprints:
        paths = index_paths(folder)
        tables = [open_index(path) for path in paths]
        sides = np.concatenate([np.load(_sidecar(path), allow_pickle=False) for path in paths])
        key_hashes = np.concatenate([table["hash"].to_numpy() for table in tables])
        return cls(key_hashes, sides["file"], sides["look"], sides["colours"])


def equal(some: HASHES, others: HASHES) -> NDArray[np.int64]:
    """(n, 2) places (in `some`, in `others`) of equal hashes."""
    order = np.argsort(others, kind="stable")
    first = np.searchsorted(others, some, side="left", sorter=order)
    counts = np.searchsorted(others, some, side="right", sorter=order) - first
    left = np.repeat(np.arange(len(some)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([left, order[np.repeat(first, counts) + within]], axis=1).astype(np.int64)


def same_colours(some: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) whether no colour of the small pictures (n, 192) is off by more than LEVELS."""
    close: NDArray[np.bool_] = np.abs(some.astype(np.int16) - others.astype(np.int16)).max(axis=1, initial=0) <= LEVELS
    return close


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
    sides = np.zeros(len(table), dtype=SIDECAR)
    sides["file"] = [int(digest[:16], 16) for digest in table["sha256"].to_pylist()]
    for row, key in enumerate(table["key"].to_pylist()):
        image = decode(pool.read(key))
        sides["look"][row] = np.packbits(imagehash.phash(image).hash).view(">u8")[0]  # from (8, 8) bool
        sides["colours"][row] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    with replacing(_sidecar(index)) as temporary, temporary.open("wb") as file:
        np.save(file, sides, allow_pickle=False)
    return len(sides)


def _is_current(index: Path) -> bool:
    """A shard is never rewritten, so its hashes stay; a foreign or cut file is made again."""
    try:
        sides = np.load(_sidecar(index), allow_pickle=False)
        return sides.dtype == SIDECAR and len(sides) == len(open_index(index))
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
