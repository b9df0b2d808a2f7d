"""What the loaders are measured on: D datasets of the same pictures, and an index of millions of rows.

Every dataset has a pool of its own, as the loaders compared with have; its export holds the same rows and bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter

from instructblip import recipes
from instructblip.data import lookup, shards
from instructblip.data.export import export
from instructblip.data.keys import key_hash
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.data.tables import BATCH_ROWS, FEATURES, table_path, to_row, write_table
from instructblip.recipes import Recipe

WORDS = ["what", "colour", "is", "the", "thing", "in", "front", "of", "that", "small", "house", "beside", "a", "tree"]


def pictures(folder: Path | None, count: int = 32) -> list[bytes]:
    """JPEG files: photographs of the folder, or noise of 640x480 blurred to about their size."""
    if folder:
        found = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
        return [data for data in found if Image.open(io.BytesIO(data)).mode == "RGB"]
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(1)).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def recipe_of(number: int) -> Recipe:
    return replace(recipes.load("vqav2"), name=f"set{number}", pool=f"set{number}")


def sample_of(recipe: str, number: int, key: str) -> Sample:
    rng = np.random.default_rng(number)
    question = " ".join(rng.choice(WORDS, 8)) + "?"
    ref = MediaRef(recipe, key)
    uid = f"{recipe}/train/{number}"
    return Sample(uid, recipe, "train", Form.vqa, (ref,), {"question": question}, (Answer("yes", 7), Answer("red", 3)))


def write(folder: Path, files: Sequence[bytes], datasets: int, tars: int, rows: int) -> None:
    """`datasets` sets of `rows` rows in `tars` tars each: as prepared (tables, media) and as exported."""
    for number in range(datasets):
        name = f"set{number}"
        pool = folder / "media" / name
        pool.mkdir(parents=True)
        keyed = ((f"{row:09d}", files[(row + number) % len(files)]) for row in range(rows))
        shards.append(pool, keyed, -(-rows // tars))
        write_table(table_path(folder, name, "train"), (sample_of(name, row, f"{row:09d}") for row in range(rows)))
        export(folder, name, "train", folder / "exported" / name, -(-rows // tars))


def write_large(folder: Path, files: Sequence[bytes], rows: int, tars: int) -> None:
    """A dataset `set0` of `rows` rows whose `tars` indices all point into one tar of the given pictures."""
    pool = folder / "media" / "set0"
    pool.mkdir(parents=True)
    real = folder / "real"
    real.mkdir()
    shards.append(real, ((str(n), data) for n, data in enumerate(files)), len(files))
    (index,) = shards.index_paths(real)
    known = lookup.open_index(index).combine_chunks()
    bounds = np.linspace(0, rows, tars + 1).astype(int).tolist()
    tar = pa.array([str((real / "real-000000.tar").resolve())])
    for shard, (first, last) in enumerate(pairwise(bounds)):
        keys = [f"{row:09d}" for row in range(first, last)]
        place = pa.array(np.arange(first, last) % len(files))
        columns = {
            "key": pa.array(keys),
            "hash": pa.array(np.array([key_hash(key) for key in keys], dtype=np.uint64)),
            "file": tar.take(pa.array(np.zeros(last - first, dtype=np.int64))),
            **{name: known[name].combine_chunks().take(place) for name in ("offset", "length", "sha256")},
        }
        _write_ipc(pool / f"set0-{shard:06d}.arrow", [pa.table(columns, lookup.SCHEMA)])
    _write_large_table(table_path(folder, "set0", "train"), rows)


def _write_large_table(path: Path, rows: int) -> None:
    """One row, repeated under keys of its own; uids are alike, for the loader reads them and no more."""
    path.parent.mkdir(parents=True)
    schema = FEATURES.arrow_schema
    one = pa.Table.from_pylist([to_row(sample_of("set0", 0, "000000000"))], schema)
    block = one.take(pa.array(np.zeros(BATCH_ROWS, dtype=np.int64))).combine_chunks()
    place = schema.get_field_index("media")

    def blocks() -> Iterator[pa.Table]:
        for first in range(0, rows, BATCH_ROWS):
            media = [[{"pool": "set0", "key": f"{row:09d}", "kind": "image", "role": "main"}]
                     for row in range(first, first + BATCH_ROWS)]  # fmt: skip
            yield block.set_column(place, schema.field("media"), pa.array(media, schema.field("media").type))

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for each in blocks():
            writer.write_table(each)


def _write_ipc(path: Path, tables: Sequence[pa.Table]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
