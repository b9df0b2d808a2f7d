"""Members of tar files read where they lie: nothing is extracted, and only a regular member is ever read."""

from __future__ import annotations

import tarfile
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructblip.data.keys import HASHES, key_hash


@dataclass(frozen=True)
class Members:
    """Where the members of a tar lie, sorted by the hash of their names; 25 bytes a member."""

    names: HASHES
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    regular: NDArray[np.bool_]
    broken: str | None  # why reading the tar ended before its end

    def find(self, name: str) -> tuple[int, int] | str:
        """Offset and length of a member, or the reason why it is not read."""
        wanted = np.uint64(key_hash(name))
        first, last = (int(np.searchsorted(self.names, wanted, side)) for side in ("left", "right"))
        if first == last:
            return f"has no member {name}" + (f" before it ends early ({self.broken})" if self.broken else "")
        if last - first > 1:
            return f"has {last - first} members {name}"
        if not self.regular[first]:
            return f"member {name} is a link, a device or a sparse file, not a regular one"
        return int(self.offsets[first]), int(self.lengths[first])


@lru_cache(maxsize=8)
def members(path: Path) -> Members:
    """The index of a tar, from its headers alone; the last few stay in memory."""
    names, offsets, lengths, regular = array("Q"), array("q"), array("q"), array("b")
    broken, size = None, path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # a tar may hold millions
                names.append(key_hash(member.name.removeprefix("./")))
                offsets.append(member.offset_data)
                lengths.append(member.size)
                regular.append(member.isreg() and not member.issparse())
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"member {member.name} is cut short")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        broken = str(error)
        if names and offsets[-1] + lengths[-1] > size:
            regular[-1] = 0
    order = np.argsort(np.array(names, dtype=np.uint64), kind="stable")
    return Members(
        np.array(names, dtype=np.uint64)[order],
        np.array(offsets, dtype=np.int64)[order],
        np.array(lengths, dtype=np.int64)[order],
        np.array(regular, dtype=bool)[order],
        broken,
    )
