"""Readers of web pictures and their captions; what is no longer on the web is a row with a reason."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.parquet

from instructblip.data.keys import key_hash
from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import MediaRef, Sample, votes
from instructblip.files import read_json

BATCH = 4096  # ours: rows in memory at a time
PICTURES = {"jpg", "jpeg", "png", "webp", "gif", "bmp"}
END = 1024  # bytes of zero, or more, at a tar's end
MAX_CAPTION = 1 << 20  # bytes (ours)
COLUMNS = ("key", "url", "status", "error_message")
CAUSES = {  # of img2dataset's error messages; few, so that a manifest can count them
    r"timed out": "timed out",
    r"name or service|getaddrinfo|name resolution|no address": "host not found",
    r"ssl|certificate": "certificate",
    r"refused|reset|unreachable|disconnected": "connection",
    r"disallowed": "disallowed by its owner",
    r"decod": "not a picture",
    r"too small|aspect": "size",
}


def img2dataset(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """The Parquet files that img2dataset writes beside its tars, one a shard; streamed, never a whole file at once.

    `select` names the columns that hold captions, of which those that are there are alternatives for one picture.
    A picture's identity is its address: the same one in two rows or two downloads is one picture of the pool.
    """
    for path in files:
        holder = path.stem if path.with_suffix("").is_dir() else f"{path.stem}.tar"  # output_format files | webdataset
        for row in _rows(path, context.select):
            source_id = f"{path.stem}/{row['key']}"
            captions = [row[name] for name in context.select if row.get(name)]
            if row["status"] != "success":
                yield Drop(context.uid(source_id), f"{row['status']}: {cause(row['error_message'])}")
            elif not captions or not row["url"]:
                yield Drop(context.uid(source_id), "no caption" if row["url"] else "no address")
            else:
                key = hashlib.sha1(row["url"].encode(), usedforsecurity=False).hexdigest()[:20]
                picture = MediaRef(context.pool, key, relpath=f"{holder}/{row['key']}.jpg")
                yield context.sample(source_id, picture, answers=votes(captions))


def llava_pretrain(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """LLaVA-Pretrain's BLIP captions in chat form: the reply is the caption, the request is LLaVA's own wording."""
    for number, row in enumerate(read_json(files[0])):
        turns = row["conversations"]
        if [turn["from"] for turn in turns] != ["human", "gpt"]:
            yield Drop(context.uid(number), "not one request and its reply")
            continue
        relpath = f"LLaVA-Pretrain/images/{row['image']}"  # apart from an own download, which has such names as well
        picture = MediaRef(context.pool, PurePosixPath(row["image"]).stem, relpath=relpath)
        yield context.sample(number, picture, answers=votes([turns[1]["value"]]))


def webdataset(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Tars of pictures with a caption each, in a text file or as `caption` of a JSON file of the picture's name.

    What stands before the first dot of a member's name is the key, and its members stand together. The pictures are
    read where they lie, so the tars belong below the pool's folder (`source` and `pool` are the same).
    """
    for path in files:
        for key, found, caption in _captioned(path):
            pictures = sorted(PICTURES & set(found))
            if not pictures or not caption:
                yield Drop(context.uid(f"{path.stem}/{key}"), "no caption" if pictures else "no picture")
                continue
            relpath = f"{path.name}/{found[pictures[0]].name}"
            picture = MediaRef(context.pool, f"{path.stem}-{key_hash(relpath):016x}", relpath=relpath)
            yield context.sample(f"{path.stem}/{key}", picture, answers=votes([caption]))


def _captioned(path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo], str]]:
    """Key, members by extension and caption of each entry. Raises ValueError naming a tar that is cut or is none."""
    try:
        with tarfile.open(path, "r:") as tar:
            for key, members in groupby(iter(tar.next, None), lambda member: stem(member.name)):
                found = {member.name[len(key) + 1 :].lower(): member for member in members if member.isreg()}
                yield key, found, _caption(tar, found)
                tar.members.clear()  # type: ignore[attr-defined]  # a tar may hold millions
            if not _has_end(path):  # tarfile takes one that is cut between two members for a shorter one
                raise tarfile.ReadError("it has no end")
    except (tarfile.TarError, OSError, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a whole tar of pictures and captions ({error}); download it again") from error


def _has_end(path: Path) -> bool:
    """Whether the two empty blocks stand there that end a tar."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END))
        return file.read() == bytes(END)


def stem(name: str) -> str:
    """A member's key, folders and all."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _caption(tar: tarfile.TarFile, found: dict[str, tarfile.TarInfo]) -> str:
    """The text of a picture; empty when it has none."""
    for kind in ("txt", "caption", "json"):
        if (member := found.get(kind)) and (file := tar.extractfile(member)):
            text = file.read(MAX_CAPTION).decode("utf-8", "replace")
            return (json.loads(text).get("caption") or "").strip() if kind == "json" else text.strip()
    return ""


def cause(message: str | None) -> str:
    """The kind of an error message: HTTP and its code, or one of `CAUSES`."""
    if found := re.search(r"HTTP Error (\d{3})", message or ""):
        return f"HTTP {found[1]}"
    return next((kind for words, kind in CAUSES.items() if re.search(words, message or "", re.IGNORECASE)), "other")


def _rows(path: Path, captions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A shard's rows with the needed columns. Raises ValueError naming the file and what is wrong with it."""
    try:
        with pyarrow.parquet.ParquetFile(path) as shard:
            names = shard.schema_arrow.names
            said = [name for name in captions if name in names]
            if (missing := set(COLUMNS) - set(names)) or not said:
                raise ValueError(
                    f"{path} has no column {', '.join(sorted(missing)) or ' or '.join(captions)}: it has "
                    f"{', '.join(names)}; download with img2dataset --url_col url --caption_col caption"
                )
            for batch in shard.iter_batches(BATCH, columns=[*COLUMNS, *said]):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error}); download its shard again") from error
