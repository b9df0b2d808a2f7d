"""A prepared split as self-contained WebDataset shards, picture beside JSON, for other programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from instructblip.data.media import extension
from instructblip.data.shards import MediaPool, write_tar
from instructblip.data.tables import Table, table_path, to_row


def export(data: Path, recipe: str, split: str, folder: Path, shard_size: int) -> int:
    """Writes `<recipe>-<split>-000000.tar` and on, one tar sample a Sample; returns how many.

    The JSON is the table's row. Of a Sample with several pictures, the others are `1.jpg`, `2.jpg` beside the first.
    """
    table = Table(table_path(data, recipe, split))
    rows = _rows(table, data / "media")
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(0, len(table), shard_size)
    for number, _ in enumerate(shards):
        write_tar(folder / f"{recipe}-{split}-{number:06d}.tar", islice(rows, shard_size))
    return len(table)


def _rows(table: Table, media: Path) -> Iterator[dict[str, Any]]:
    pools: dict[str, MediaPool] = {}
    for number in range(len(table)):
        sample = table.sample(number)
        files: dict[str, Any] = {"__key__": re.sub(r"[^\w\-]", "-", sample.uid)}
        for place, ref in enumerate(sample.media):
            if ref.pool not in pools:
                pools[ref.pool] = MediaPool(media / ref.pool)
            content = pools[ref.pool].read(ref.key)
            files[f"{place}.{extension(content)}" if place else extension(content)] = content
        files["json"] = json.dumps(to_row(sample), ensure_ascii=False).encode()
        yield files
