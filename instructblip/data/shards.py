"""Pixels, stored once per media pool: WebDataset tars with an index beside each, appended to and never rewritten.

`coco-000000.tar` holds one picture a tar sample; `coco-000000.arrow` says where each lies. A tar counts only once its
index has its name, so an interrupted writing leaves nothing that is read. An index may also point at the files of an
existing folder (`media=link`): a file is then its own container at offset 0.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from instructblip.data.media import BadMedia, extension
from instructblip.files import replacing

os.environ["WDS_SECURE"] = "1"  # before webdataset is imported: no pickles, no shell in URLs
import webdataset as wds

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
KEY = re.compile(r"[\w\-]{1,90}")  # a tar member `key.jpg`: no folders, no second dot, within the name field


class MediaPool:
    """Random access to a pool's pictures by key: one search in a sorted array, one `pread`.

    Raises ValueError at opening when there is no pool, or a tar is missing or not of the size its index was made for.
    """

    def __init__(self, folder: Path, indices: Sequence[Path] = ()) -> None:
        self.folder = folder
        indices = indices or index_paths(folder)
        if not indices:
            raise ValueError(f"no media index in {folder}; write it with `python prepare.py recipe=...`")
        tables = [open_index(path) for path in indices]
        self._index = pa.concat_tables(tables)
        hashes = np.concatenate([table["hash"].to_numpy() for table in tables])
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: str) -> bool:
        return self._row(key) is not None

    def read(self, key: str) -> bytes:
        """The picture's file content. Raises BadMedia when the key is unknown or the bytes are not those indexed."""
        row = self._row(key)
        if row is None:
            raise BadMedia(f"{self.folder.name}/{key}", "not in the media pool")
        file, offset, length, digest = (
            self._index[name][row].as_py() for name in ("file", "offset", "length", "sha256")
        )
        data = os.pread(self._descriptor(file), length, offset)
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadMedia(f"{self.folder / file} at byte {offset}", f"is not the picture {key!r} that was indexed")
        return data

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder}  # workers open their own file descriptors

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def _row(self, key: str) -> int | None:
        wanted = key_hash(key)
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            row = int(self._order[at])
            if self._index["key"][row].as_py() == key:
                return row
            at += 1
        return None

    def _descriptor(self, file: str) -> int:
        if file not in self._files:
            self._files[file] = os.open(self.folder / file, os.O_RDONLY)
        return self._files[file]


def index_paths(folder: Path) -> list[Path]:
    """The indices of the pool's finished shards."""
    return sorted(folder.glob("*.arrow"))


def pool_keys(folder: Path) -> set[str]:
    """Every key of the pool's finished shards."""
    return {key.as_py() for path in index_paths(folder) for key in open_index(path)["key"]}


def append(folder: Path, pictures: Iterable[tuple[str, bytes]], shard_size: int) -> Iterator[int]:
    """Writes (key, file content) pairs into new tars of at most `shard_size`; yields each finished tar's count."""
    for leftover in folder.glob("*.tar"):
        if not leftover.with_suffix(".arrow").exists():
            leftover.unlink()  # its writer was interrupted before the index took its name
    pictures = iter(pictures)
    while chunk := list(islice(pictures, shard_size)):
        shard = folder / f"{folder.name}-{_next_number(folder):06d}.tar"
        write_tar(shard, ({"__key__": member_key(key), extension(data): data} for key, data in chunk))
        _write_index(shard.with_suffix(".arrow"), index_tar(shard), shard.stat().st_size)
        yield len(chunk)


def write_tar(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A WebDataset tar, whole or not at all: each row has a `__key__`, its other entries are files by extension."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as stream,
        wds.TarWriter(stream, encoder=False, mtime=0) as tar,
    ):
        for row in rows:
            tar.write(row)


def link(folder: Path, pictures: Iterable[tuple[str, Path]]) -> int:
    """Indexes files where they lie instead of copying them; returns how many."""
    rows = []
    for key, path in pictures:
        data = path.read_bytes()
        rows.append(_entry(member_key(key), str(path.resolve()), 0, data))
    if rows:
        name = f"{folder.name}-{_next_number(folder):06d}.arrow"
        _write_index(folder / name, pa.Table.from_pylist(rows, SCHEMA), 0)
    return len(rows)


def index_tar(path: Path) -> pa.Table:
    """Where each picture of a WebDataset tar lies, read back from the file itself (ours or a foreign one)."""
    rows = []
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                rows.append(_entry(member.name.split(".")[0], path.name, member.offset_data, content.read()))
    return pa.Table.from_pylist(rows, SCHEMA)


def key_hash(key: str) -> int:
    """64 bits of a key's hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def member_key(key: str) -> str:
    """The key itself, when it can be a tar member's name; ValueError otherwise."""
    if not KEY.fullmatch(key):
        raise ValueError(f"media key {key!r} cannot name a shard member: 1 to 90 letters, digits, '_' and '-'")
    return key


def _entry(key: str, file: str, offset: int, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    return {
        "key": key,
        "hash": key_hash(key),
        "file": file,
        "offset": offset,
        "length": len(data),
        "sha256": digest,
    }


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


def open_index(path: Path) -> pa.Table:
    """The memory-mapped index, after checking that its tar is there and has the size it was made for."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a media index ({error}); delete it and its tar, and prepare again") from error
    expected = int((table.schema.metadata or {}).get(b"container_bytes", b"0"))
    if expected:
        tar = path.with_suffix(".tar")
        size = tar.stat().st_size if tar.exists() else 0
        if size != expected:
            raise ValueError(
                f"{tar} has {size:,} bytes where its index was made for {expected:,}; "
                f"delete both files and run prepare.py again"
            )
    return table
