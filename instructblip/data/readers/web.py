"""Readers of web pictures and their captions; what is no longer on the web is a row with a reason."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.parquet

from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import MediaRef, Sample, votes
from instructblip.files import read_json

BATCH = 4096  # ours: rows in memory at a time
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
            elif not captions:
                yield Drop(context.uid(source_id), "no caption")
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
