"""Where each key of a media pool lies: the hashes of all its keys, sorted, each with its shard and row.

A large pool's arrays are kept in a file beside its shards and mapped into memory, so that any number of processes
opens 14 million keys at once and holds them once. The file's name is a hash of what it was made from; it is a cache
and is made anew when missing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from instructblip.data.keys import HASHES

LARGE = 1_000_000  # keys (ours): fewer are sorted in under 0.2 s at every opening
ROW_BITS = 32
AGAIN = "delete index and tar, and the tables of the recipes that show its pictures, and run prepare.py again"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("hash", pa.uint64()),  # of the key, so that an index is searched without building a dictionary
        ("file", pa.string()),  # relative to the pool's folder; absolute where a folder is linked
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("sha256", pa.string()),
    ]
)


def sorted_keys(folder: Path, indices: Sequence[Path]) -> HASHES:
    """(2, n): sorted key hashes, and beneath each `shard << 32 | row`, where `shard` counts the indices.

    Raises ValueError for an index that cannot be read, or whose tar is missing or not of the size it was made for.
    """
    kept = folder / f".lookup-{_state(folder, indices)}.npy"
    if (mapped := _mapped(kept)) is not None:
        return mapped
    made = _made(indices)
    if made.shape[1] < LARGE or not _keep(kept, made):
        return made
    mapped = _mapped(kept)
    return made if mapped is None else mapped


def _mapped(path: Path) -> HASHES | None:
    """The kept arrays; None when there are none, or a crash left less than was written."""
    try:
        kept: HASHES = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept


def open_index(path: Path) -> pa.Table:
    """The memory-mapped index, after checking that its tar is there and has the size it was made for."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a media index ({error}); {AGAIN}") from error
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"{path} is not a media index, its columns are {', '.join(table.column_names)}; {AGAIN}")
    expected = int((table.schema.metadata or {}).get(b"container_bytes", b"0"))
    if expected:
        tar = path.with_suffix(".tar")
        size = tar.stat().st_size if tar.exists() else 0
        if size != expected:
            raise ValueError(f"{tar} has {size:,} bytes where its index was made for {expected:,}; {AGAIN}")
    return table


def _made(indices: Sequence[Path]) -> HASHES:
    hashes = [open_index(path)["hash"].to_numpy() for path in indices]
    places = [np.arange(len(part), dtype=np.uint64) | np.uint64(n << ROW_BITS) for n, part in enumerate(hashes)]
    keys = np.concatenate(hashes)
    order = np.argsort(keys, kind="stable")  # of a key stored twice, the first one counts
    return np.stack([keys[order], np.concatenate(places)[order]])


def _state(folder: Path, indices: Sequence[Path]) -> str:
    """Differs when an index or a tar was added, removed or changed."""
    digest = hashlib.sha256()
    for path in indices:
        index, tar = path.stat(), path.with_suffix(".tar")
        size = tar.stat().st_size if tar.exists() else 0
        digest.update(f"{path.relative_to(folder)}\t{index.st_size}\t{index.st_mtime_ns}\t{size}\n".encode())
    return digest.hexdigest()[:16]


def _keep(path: Path, made: HASHES) -> bool:
    """Puts the arrays beside the shards, in place of what an earlier state left; False where nothing can be written."""
    if not os.access(path.parent, os.W_OK):
        return False
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".part", delete=False) as file:
        np.save(file, made)
    os.chmod(file.name, 0o644)
    for old in path.parent.glob(".lookup-*.npy"):
        old.unlink(missing_ok=True)
    os.replace(file.name, path)
    return True
