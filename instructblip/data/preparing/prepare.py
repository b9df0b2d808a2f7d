"""From official files to tables and shards: read, check, store the pictures once, write the rows.

The files are read twice: to count and to look for double ids, then a few thousand rows at a time, whose pictures are
stored before the rows are written. Memory holds hashes, never rows: the largest set has 14 million. Interrupted, it
goes on where it stopped: finished shards stay, the rest is done again. A second run over unchanged files does nothing.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from instructblip.choices import MediaMode
from instructblip.config.preparing import PrepareConfig
from instructblip.data.keys import KeySet, hashes, key_hash
from instructblip.data.media import RawPool
from instructblip.data.preparing.clips import require_decoder, stored_keys, with_frames
from instructblip.data.preparing.fetch import Fetcher, fetching, useful_workers
from instructblip.data.preparing.manifest import (
    LOST,
    Dropped,
    check_any,
    check_bad_share,
    check_count,
    open_manifest,
    table_facts,
)
from instructblip.data.preparing.parts import Part, Row
from instructblip.data.preparing.store import Store
from instructblip.data.readers.base import Drop
from instructblip.data.sample import Sample
from instructblip.data.shards import Shards, stored_hashes
from instructblip.data.tables import table_path, write_table
from instructblip.files import lock, replacing, sha256, write_json
from instructblip.recipes import Recipe

CHUNK = 4096  # rows whose pictures are fetched together
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Work:
    """One split, or a part of it."""

    recipe: Recipe
    split: str
    config: PrepareConfig
    part: Part
    progress: Progress

    def __str__(self) -> str:
        return f"{self.recipe.name}/{self.split}"

    @property
    def folder(self) -> Path:
        return self.part.within(table_path(Path(self.config.paths.data), self.recipe.table, self.split).parent)

    @property
    def table(self) -> Path:
        return self.folder / f"{self.split}.arrow"

    def chunks(self) -> Iterator[list[Row]]:
        rows = self.part.rows(self.recipe, self.split, Path(self.config.paths.raw))
        while chunk := list(islice(rows, CHUNK)):
            yield chunk

    def hashes(self) -> dict[str, str]:
        """sha256 of each official file."""
        raw = Path(self.config.paths.raw)
        files = self.part.files(self.recipe, self.split, raw)
        return {str(path.relative_to(raw / self.recipe.source)): sha256(path) for path in files}


@dataclass
class Tally:
    """What the files hold, and what became of it."""

    rows: int = 0
    dropped: Dropped = field(default_factory=Dropped)
    media: KeySet = field(default_factory=KeySet)  # one key a picture; of a clip that of its last frame
    clips: bool = False
    bad: int = 0
    reasons: list[str] = field(default_factory=list)  # of the first bad ones
    written: array[int] = field(default_factory=lambda: array("q"))  # numbers of the rows in the table


def prepare(recipe: Recipe, split: str, config: PrepareConfig, progress: Progress) -> dict[str, Any]:
    """Prepares one split, or a part of it; returns its manifest entry, with `fresh` telling whether it was written.

    Raises ValueError for missing or malformed files, wrong counts, too many bad pictures, a foreign output folder.
    """
    work = Work(recipe, split, config, Part(config.part, config.parts), progress)
    path = work.folder / "manifest.json"
    with lock(work.folder / ".lock", f"recipe {recipe.name}"):
        manifest = open_manifest(path, recipe, config.rebuild)
        read_from = work.hashes()
        done = manifest["splits"].get(split)
        if done and _is_whole(work.table, done) and _still_true(done, read_from, config):
            return {**done, "fresh": False}
        tally = _survey(work)
        if work.part.whole:
            check_any(recipe, split, tally.rows, tally.dropped)
        if work.part.whole and config.check_counts:
            check_count(recipe, split, tally.rows)
        rows = _write(work, tally)
        entry = _entry(work, tally, rows) | {"sources": read_from}
        manifest["splits"][split] = entry
        write_json(path, manifest)
    return {**entry, "fresh": True}


def _is_whole(table: Path, done: dict[str, Any]) -> bool:
    return table.is_file() and table.stat().st_size == done["table"]["bytes"]


def _still_true(done: dict[str, Any], read_from: dict[str, str], config: PrepareConfig) -> bool:
    frames = done.get("frames")
    return done["sources"] == read_from and LOST not in done["dropped"] and frames in (None, config.frames)


def _survey(work: Work) -> Tally:
    """Counts rows and pictures. Raises ValueError for an id that occurs twice."""
    tally, uids, doubles = Tally(), KeySet(), set[int]()
    bar = iter(work.progress(range(work.recipe.split(work.split).rows or 0), f"{work}: rows"))
    for chunk in work.chunks():
        samples = []
        for _, item in chunk:
            next(bar, None)
            if isinstance(item, Drop):
                tally.dropped.add(item.reason, [item.uid])
            else:
                samples.append(item)
        doubles.update(uids.add(hashes(sample.uid for sample in samples)).tolist())
        refs = [ref for sample in samples for ref in sample.media]
        tally.media.add(hashes(stored_keys(ref, work.config.frames)[-1] for ref in refs))
        tally.clips |= any(ref.kind == "video" for ref in refs)
        tally.rows += len(samples)
    if doubles:
        _refuse_doubles(work, doubles)
    return tally


def _refuse_doubles(work: Work, doubles: set[int]) -> None:
    """Raises ValueError when two of the ids with these hashes are the same, and not only their hashes."""
    seen: set[str] = set()
    for _, item in itertools.chain.from_iterable(work.chunks()):
        if isinstance(item, Sample) and key_hash(item.uid) in doubles:
            if item.uid in seen:
                raise ValueError(f"{work}: id {item.uid} occurs twice in {work.recipe.split(work.split).files[0]}")
            seen.add(item.uid)


def _write(work: Work, tally: Tally) -> int:
    """Stores the pictures and writes the table; returns its rows."""
    if tally.clips:
        require_decoder()
    folder = Path(work.config.paths.data) / "media" / work.recipe.pool
    with lock(work.part.within(folder) / ".lock", f"media pool {work.recipe.pool}"):
        rows = write_table(work.table, _kept(work, tally, folder))
    if not work.part.whole:
        with replacing(work.table.with_suffix(".rows")) as temporary:
            temporary.write_bytes(tally.written.tobytes())
    return rows


def _kept(work: Work, tally: Tally, folder: Path) -> Iterator[Sample]:
    """The Samples whose pictures are stored; the others are counted."""
    config = work.config
    with _filling(work, tally, folder) as store:
        for chunk in work.chunks():
            samples = [(number, item) for number, item in chunk if isinstance(item, Sample)]
            store.add([sample for _, sample in samples])
            for number, sample in samples:
                if store.lost(sample):
                    tally.dropped.add(LOST, [sample.uid])
                else:
                    tally.written.append(number)
                    yield with_frames(sample, config.frames)
    tally.bad, tally.reasons = len(store.bad), store.reasons
    check_bad_share(work.recipe, tally.bad, len(tally.media), config.max_bad_media, store.reasons)


@contextmanager
def _filling(work: Work, tally: Tally, folder: Path) -> Iterator[Store]:
    """The media pool, being filled with what the split wants; left in order, its last shard is finished."""
    config, name = work.config, work.recipe.pool
    raw = RawPool.open(name, config.paths.pool(name))
    stored = KeySet(stored_hashes(folder))
    missing = stored.count_missing(tally.media)
    bar = iter(work.progress(range(missing), f"{work}: pictures"))
    fetcher = Fetcher(raw, config.frames, config.media is MediaMode.link)
    workers = useful_workers(config.workers, missing, tally.clips)
    part = work.part.within(folder)
    stem = name if work.part.whole else f"{name}-{part.name}"
    with Shards(folder, part, stem, config.shard_size) as shards, fetching(fetcher, workers) as fetch:
        yield Store(stored, config.frames, shards, fetch, bar)


def _entry(work: Work, tally: Tally, rows: int) -> dict[str, Any]:
    part = work.part
    return {
        "rows": rows,
        "official_rows": work.recipe.split(work.split).rows,
        "dropped": tally.dropped.facts(),
        "pictures": {"wanted": len(tally.media), "bad": tally.bad},
        "first_bad": tally.reasons,
        "frames": work.config.frames if tally.clips else None,
        "table": table_facts(work.table),
        "part": None if part.whole else [part.number, part.of],
    }
