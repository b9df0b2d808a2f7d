"""Pixels, stored once per media pool: WebDataset tars with an index beside each, appended to and never rewritten.

`coco-000000.tar` holds one picture a tar sample; `coco-000000.arrow` says where each lies. A tar counts only once its
index has its name, so an interrupted writing leaves nothing that is read. An index may also point into the files of
an existing folder (`media=link`): at whole pictures, or at members of its tars. Machines that write one pool together
have a folder each within it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from instructblip.data.keys import HASHES, key_hash
from instructblip.data.lookup import ROW_BITS, SCHEMA, open_index, sorted_keys
from instructblip.data.media import BadMedia, Place, extension
from instructblip.files import replacing, sync

os.environ["WDS_SECURE"] = "1"  # before webdataset is imported: no pickles, no shell in URLs
import webdataset as wds

NAME = re.compile(r"[\w\-%]{1,90}", re.ASCII)  # a tar member `name.jpg`: no folders, no second dot, one header block
BLOCK = 512  # bytes of a tar
MAX_OPEN = 256  # files of a pool (ours): processes may have 1,024 by default, over all pools


class MediaPool:
    """Random access to a pool's pictures by key: one search in a sorted array, one `pread`.

    Raises ValueError at opening when there is no pool, or a tar is missing or not of the size its index was made for.
    """

    def __init__(self, folder: Path, indices: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._indices = list(indices) or index_paths(folder)
        if not self._indices:
            raise ValueError(f"no media index in {folder}; write it with `python prepare.py recipe=...`")
        self._hashes, self._places = sorted_keys(folder, self._indices)
        self._opened: dict[int, pa.Table] = {}
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: str) -> bool:
        return self._row(key) is not None

    def read(self, key: str) -> bytes:
        """The picture's file content. Raises BadMedia when the key is unknown or the bytes are not those indexed."""
        found = self._row(key)
        if found is None:
            raise BadMedia(f"{self.folder.name}/{key}", "not in the media pool")
        index, row = found
        file, offset, length, digest = (index[name][row].as_py() for name in ("file", "offset", "length", "sha256"))
        try:
            data = os.pread(self._descriptor(file), length, offset)
        except OSError as error:
            raise BadMedia(f"{self.folder / file} at byte {offset}", f"cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadMedia(f"{self.folder / file} at byte {offset}", f"is not the picture {key!r} that was indexed")
        return data

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "indices": self._indices}  # workers open their own file descriptors

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _row(self, key: str) -> tuple[pa.Table, int] | None:
        """The index that has the key, and the row in it."""
        wanted = np.uint64(key_hash(key))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            shard, row = divmod(int(self._places[at]), 1 << ROW_BITS)
            index = self._index(shard)
            if index["key"][row].as_py() == key:
                return index, row
            at += 1
        return None

    def _index(self, shard: int) -> pa.Table:
        if shard not in self._opened:
            self._opened[shard] = open_index(self._indices[shard])
        return self._opened[shard]

    def _descriptor(self, file: str) -> int:
        """Opened once and kept, but for all but the last ones of a linked folder with more files than may be open."""
        if file in self._files:
            self._files[file] = self._files.pop(file)  # dictionaries keep their order: now the last one used
        else:
            if len(self._files) == MAX_OPEN:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[file] = os.open(self.folder / file, os.O_RDONLY)
        return self._files[file]


def index_paths(folder: Path) -> list[Path]:
    """The indices of the pool's finished shards."""
    return sorted(folder.rglob("*.arrow"))


def stored_hashes(folder: Path) -> HASHES:
    """The hash of every key in the pool's finished shards."""
    found = [open_index(path)["hash"].to_numpy() for path in index_paths(folder)]
    return np.concatenate([np.empty(0, dtype=np.uint64), *found])


class Shards:
    """Writes pictures into a pool's new shards of at most `size`, each whole or absent.

    `folder` is the pool's own or one within it. Left by an exception, the shard begun is dropped.
    """

    def __init__(self, pool: Path, folder: Path, stem: str, size: int) -> None:
        self.pool, self.folder, self.stem, self.size = pool, folder, stem, size
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.tar"):
            if not leftover.with_suffix(".arrow").exists():
                leftover.unlink()  # its writer was interrupted before the index took its name
        self._stream: BinaryIO | None = None
        self._begin()

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        if self._stream is not None:
            self._writer.close()
            self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, key: str, data: bytes, sha256: str) -> None:
        """Stores a picture's file content under the key."""
        if self._stream is None:
            self._stream = self._temporary.open("wb")
            self._writer = wds.TarWriter(self._stream, encoder=False, mtime=0)
        self._writer.write({"__key__": member_name(key), extension(data): data})
        offset = self._writer.tarstream.offset - -(-len(data) // BLOCK) * BLOCK
        file = self._tar.relative_to(self.pool).as_posix()
        self._enter(key, file, offset, len(data), sha256)

    def link(self, key: str, place: Place, length: int, sha256: str) -> None:
        """Notes where the picture lies instead of copying it."""
        self._enter(key, str(place.file.resolve()), place.offset, length, sha256)

    def finish(self) -> None:
        """Gives the shard begun its name; nothing when it holds nothing."""
        if not self._rows:
            return
        size = 0
        if self._stream is not None:
            self._writer.close()
            self._stream.close()
            size = self._temporary.stat().st_size
            sync(self._temporary)
            os.replace(self._temporary, self._tar)
            sync(self.folder)
        _write_index(self._tar.with_suffix(".arrow"), pa.Table.from_pylist(self._rows, SCHEMA), size)
        self._begin()

    def _begin(self) -> None:
        self._tar = self.folder / f"{self.stem}-{_next_number(self.folder):06d}.tar"
        self._temporary = self.folder / f".{self._tar.name}.{os.getpid()}.tmp"
        self._rows: list[dict[str, object]] = []
        self._stream = None

    def _enter(self, key: str, file: str, offset: int, length: int, digest: str) -> None:
        names = ("key", "hash", "file", "offset", "length", "sha256")
        self._rows.append(dict(zip(names, (key, key_hash(key), file, offset, length, digest), strict=True)))
        if len(self._rows) == self.size:
            self.finish()


def append(folder: Path, pictures: Iterable[tuple[str, bytes]], shard_size: int) -> None:
    """Writes (key, file content) pairs into new shards of a pool."""
    with Shards(folder, folder, folder.name, shard_size) as shards:
        for key, data in pictures:
            shards.add(key, data, hashlib.sha256(data).hexdigest())


def write_tar(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A WebDataset tar, whole or not at all: each row has a `__key__`, its other entries are files by extension."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as stream,
        wds.TarWriter(stream, encoder=False, mtime=0) as tar,
    ):
        for row in rows:
            tar.write(row)


def member_name(key: str) -> str:
    """What a key is called in a tar: itself where it can be, else escaped as in a URL, dots too.

    Different keys have different names. Of a very long one the end is a hash. Raises ValueError for an empty key.
    """
    if not key:
        raise ValueError("an empty media key cannot name a picture")
    name = quote(key, safe="").replace(".", "%2E").replace("~", "%7E")
    return name if NAME.fullmatch(name) else f"{name[:60]}%-{key_hash(key):016x}"


def _next_number(folder: Path) -> int:
    numbers = [int(path.stem.rsplit("-", 1)[1]) for path in folder.glob("*-??????.arrow")]
    return max(numbers, default=-1) + 1


def _write_index(path: Path, table: pa.Table, container_bytes: int) -> None:
    table = table.replace_schema_metadata({"container_bytes": str(container_bytes)})
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
