"""A media pool being filled: each picture a split wants and the pool has not, fetched once and written in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from instructblip.data.keys import KeySet, hashes
from instructblip.data.preparing.clips import stored_keys
from instructblip.data.preparing.fetch import Fetch, Fetched
from instructblip.data.sample import Sample
from instructblip.data.shards import Shards

SHOWN = 5  # reasons in an error


class Store:
    """`add(samples)` stores what they want; `lost(sample)` tells whether one of its pictures could not be had."""

    def __init__(self, stored: KeySet, frames: int, shards: Shards, fetch: Fetch, bar: Iterator[Any]) -> None:
        self._settled, self.frames = stored, frames  # settled: stored, or found to be bad
        self.bad, self.reasons = KeySet(), list[str]()
        self._shards, self._fetch, self._bar = shards, fetch, bar

    def add(self, samples: Sequence[Sample]) -> None:
        refs = {ref.key: ref for sample in samples for ref in sample.media}
        keys = [key for ref in refs.values() for key in stored_keys(ref, self.frames)]
        held = self._settled.holds(hashes(keys))
        missing = {key for key, known in zip(keys, held, strict=True) if not known}
        wanted = [ref for ref in refs.values() if not missing.isdisjoint(stored_keys(ref, self.frames))]
        for found in self._fetch(wanted):
            next(self._bar, None)
            self._keep(found, missing)
        self._settled.add(hashes(missing))

    def lost(self, sample: Sample) -> bool:
        return bool(len(self.bad)) and bool(self.bad.holds(hashes(ref.key for ref in sample.media)).any())

    def _keep(self, found: Fetched, missing: set[str]) -> None:
        if found.bad is not None:
            self.bad.add(hashes([found.ref.key]))
            self.reasons += [found.bad] if len(self.reasons) < SHOWN else []
        for picture in found.pictures:
            if picture.key not in missing:
                continue  # a clip whose other frames are in a finished shard
            if picture.place is not None:
                self._shards.link(picture.key, picture.place, picture.length, picture.sha256)
            else:
                self._shards.add(picture.key, picture.data, picture.sha256)
