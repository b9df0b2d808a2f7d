"""Reading, checking and decoding pictures and clips, over processes, in order and with a bounded window."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from instructblip.data.media import BadMedia, Place, RawPool, decode, extension
from instructblip.data.preparing.clips import frames, stored_keys
from instructblip.data.sample import MediaRef

TOGETHER = 8  # pictures handed to a process at once
AHEAD = 2  # such handfuls waiting or being read, per process: what bounds the memory
WORTH = 256  # pictures for which starting another process takes less time than it saves


@dataclass(frozen=True)
class Picture:
    """A checked picture: its bytes as they were, or the place to be linked and no bytes."""

    key: str
    data: bytes
    place: Place | None
    length: int
    sha256: str


@dataclass(frozen=True)
class Fetched:
    """What came of a reference: a picture, the frames of a clip, or why there are none."""

    ref: MediaRef
    pictures: tuple[Picture, ...] = ()
    bad: str | None = None


@dataclass(frozen=True)
class Fetcher:
    """What a process must know to fetch."""

    pool: RawPool
    frames: int
    link: bool

    def __call__(self, refs: Sequence[MediaRef]) -> list[Fetched]:
        return [self._fetch(ref) for ref in refs]

    def _fetch(self, ref: MediaRef) -> Fetched:
        try:
            place = self.pool.find(ref)
            if ref.kind == "video":
                keys = stored_keys(ref, self.frames)
                shown = frames(place, self.frames)
                return Fetched(ref, tuple(_picture(key, data, None) for key, data in zip(keys, shown, strict=True)))
            data = place.read()
            try:
                extension(data)
                decode(data)
            except BadMedia as error:
                raise BadMedia(str(place.file), error.reason) from error
            return Fetched(ref, (_picture(ref.key, data, place if self.link else None),))
        except BadMedia as error:
            return Fetched(ref, bad=str(error))


Fetch = Callable[[Sequence[MediaRef]], Iterator[Fetched]]


@contextmanager
def fetching(fetcher: Fetcher, workers: int) -> Iterator[Fetch]:
    """A function that fetches references over `workers` processes and yields the results in their order.

    With one, in this process. Raises ValueError naming what was being read when a process died.
    """
    if workers == 1:
        yield lambda refs: (found for ref in refs for found in fetcher([ref]))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) as processes:
        try:
            yield lambda refs: _ordered(processes, fetcher, refs, workers * AHEAD)
        finally:
            processes.shutdown(cancel_futures=True)


def useful_workers(wanted: int | None, pictures: int, clips: bool) -> int:
    """Processes to use: those wanted, by default one a core, and no more than there is work for."""
    if wanted is not None and wanted < 1:
        raise ValueError(f"workers={wanted}: at least 1 is needed")
    cores = len(os.sched_getaffinity(0))
    return max(1, min(wanted or cores, pictures if clips else -(-pictures // WORTH)))


def _ordered(
    processes: ProcessPoolExecutor, fetcher: Fetcher, refs: Sequence[MediaRef], window: int
) -> Iterator[Fetched]:
    together = 1 if any(ref.kind == "video" for ref in refs) else TOGETHER
    waiting: deque[tuple[tuple[MediaRef, ...], Future[list[Fetched]]]] = deque()
    rest = iter(refs)
    while True:
        while len(waiting) < window and (handful := tuple(islice(rest, together))):
            waiting.append((handful, processes.submit(fetcher, handful)))
        if not waiting:
            return
        handful, future = waiting.popleft()
        try:
            yield from future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                f"a process died while it read pictures, the first of them {handful[0].key} of pool "
                f"{fetcher.pool.name}: killed, perhaps for want of memory; finished shards are kept, "
                f"run again, with fewer workers= if it was memory"
            ) from error


def _picture(key: str, data: bytes, place: Place | None) -> Picture:
    return Picture(key, b"" if place else data, place, len(data), hashlib.sha256(data).hexdigest())


def _end_with_parent() -> None:
    """Ends this process when its parent is killed; it would wait for work for ever. An interrupt is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
