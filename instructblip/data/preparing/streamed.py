"""`source=hub`: from a stream of Samples with their pictures to tables and shards, in one pass.

Rows wait in a temporary file until every picture is stored, so that no table names a picture that is not there. An
interrupted run keeps its finished shards and streams the rows again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from instructblip.config.preparing import PrepareConfig
from instructblip.data import shards
from instructblip.data.keys import KeySet
from instructblip.data.media import BadMedia, RawPool, decode
from instructblip.data.preparing import hub
from instructblip.data.preparing.manifest import (
    LOST,
    SHOWN,
    Dropped,
    check_any,
    check_bad_share,
    check_count,
    open_manifest,
    table_facts,
)
from instructblip.data.preparing.prepare import Progress
from instructblip.data.readers.base import Drop
from instructblip.data.readers.mirrors import Entry, Pictures
from instructblip.data.sample import MediaRef, Sample
from instructblip.data.tables import from_row, table_path, to_row, write_table
from instructblip.files import lock, write_json
from instructblip.recipes import Recipe


def prepare_streamed(recipe: Recipe, split: str, config: PrepareConfig, progress: Progress) -> dict[str, Any]:
    """Prepares one split from its mirror and returns its manifest entry, as `prepare` does from official files."""
    data = Path(config.paths.data)
    mirror = hub.mirror_of(recipe, split)
    path = data / "tables" / recipe.table / "manifest.json"
    with lock(path.with_name(".lock"), f"recipe {recipe.table}"):
        manifest, revision = open_manifest(path, recipe, config.rebuild), hub.version(mirror, config.paths.hub)
        read_from = {f"hub:{mirror.repo}": revision}
        table, done = table_path(data, recipe.table, split), manifest["splits"].get(split)
        if done and done["sources"] == read_from and table.is_file() and LOST not in done["dropped"]:
            return {**done, "fresh": False}
        with TemporaryFile("w+", encoding="utf-8") as waiting:
            stream = Stream(recipe, split, config, waiting)
            entries = hub.entries(recipe, split, config.paths, revision)
            stream.store(progress(entries, f"{recipe.name}: rows of {mirror.repo}"))
            stream.check()
            rows = write_table(table, stream.kept())
        manifest["splits"][split] = entry = {
            "rows": rows,
            "official_rows": recipe.split(split).rows,
            "dropped": stream.dropped.facts(),
            "pictures": {"wanted": len(stream.media), "bad": len(stream.bad)},
            "first_bad": list(stream.bad.values())[:SHOWN],
            "table": table_facts(table),
            "sources": read_from,
        }
        write_json(path, manifest)
    return {**entry, "fresh": True}


@dataclass
class Stream:
    """A split on its way through; `waiting` holds its rows, `bad` the pictures that cannot be had (key -> why)."""

    recipe: Recipe
    split: str
    config: PrepareConfig
    waiting: IO[str]
    rows: int = 0
    media: set[str] = field(default_factory=set)  # keys
    dropped: Dropped = field(default_factory=Dropped)
    bad: dict[str, str] = field(default_factory=dict)

    def store(self, entries: Iterable[Entry]) -> None:
        """Puts the rows into `waiting` and the pictures that are new into their pool."""
        folder = Path(self.config.paths.data) / "media" / self.recipe.pool
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / ".lock", f"media pool {self.recipe.pool}"):
            stored = KeySet(shards.stored_hashes(folder))
            new = ((ref, brought) for ref, brought in self._spooled(entries) if ref.key not in stored)
            shards.append(folder, self._good(new), self.config.shard_size)

    def check(self) -> None:
        """Raises ValueError for no or a wrong number of rows, or too many bad pictures."""
        check_any(self.recipe, self.split, self.rows, self.dropped)
        if self.config.check_counts:
            check_count(self.recipe, self.split, self.rows)
        reasons = list(self.bad.values())[:SHOWN]
        check_bad_share(self.recipe, len(self.bad), len(self.media), self.config.max_bad_media, reasons)

    def kept(self) -> Iterator[Sample]:
        """The waiting Samples, without those that lost a picture."""
        self.waiting.seek(0)
        for line in self.waiting:
            sample = from_row(json.loads(line))
            if any(ref.key in self.bad for ref in sample.media):
                self.dropped.add(LOST, [sample.uid])
            else:
                yield sample

    def _spooled(self, entries: Iterable[Entry]) -> Iterator[tuple[MediaRef, Pictures]]:
        """Every picture once, with what its row brought. Raises ValueError for an id that occurs twice."""
        seen: set[str] = set()
        for item, brought in entries:
            if isinstance(item, Drop):
                self.dropped.add(item.reason, [item.uid])
                continue
            if item.uid in seen:
                raise ValueError(f"id {item.uid} occurs twice in {self.recipe.mirrors[self.split].repo}")
            seen.add(item.uid)
            self.rows += 1
            self.waiting.write(json.dumps(to_row(item), ensure_ascii=False) + "\n")
            for ref in item.media:
                if ref.key not in self.media:
                    self.media.add(ref.key)
                    yield ref, brought

    def _good(self, pictures: Iterable[tuple[MediaRef, Pictures]]) -> Iterator[tuple[str, bytes]]:
        """Pictures that decode; those a row did not bring come from the raw folder."""
        raw: RawPool | None = None
        for ref, brought in pictures:
            try:
                if ref.key not in brought and raw is None:
                    pool = self.recipe.pool
                    raw = RawPool.open(pool, self.config.paths.pool(pool))
                content = brought[ref.key] if ref.key in brought or raw is None else raw.find(ref).read()
                decode(content)
                yield ref.key, content
            except BadMedia as error:
                self.bad[ref.key] = f"{ref.pool}/{ref.key}: {error}"
