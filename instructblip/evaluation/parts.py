"""Predictions written by several processes: each into a part of its own, joined by whoever ends last.

The batch is the unit: dealt by its number, written at once, resumed whole. Batches do not depend on who asks them, so
the joined file has the same bytes however many processes wrote it and however often they were killed. Nobody waits
for another: a process without work ends, and the one that finds every batch written joins them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from instructblip.evaluation.predictions import REMEDY, Conditions, parse, require_same, whole_lines
from instructblip.files import lock, replacing


@dataclass(frozen=True)
class Share:
    """This process among those torchrun or srun started, on all machines and on this one."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Share:
        """Within a job script but outside srun a process is alone, whatever the job was given."""
        if "RANK" in os.environ:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        elif "SLURM_STEP_NUM_TASKS" in os.environ:
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        else:
            return cls()
        return cls(*(int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True)))


@dataclass(frozen=True)
class Parts:
    """The file `path` of predictions and its parts; `batches` are the uids of each batch, in the joined order."""

    path: Path
    conditions: Conditions
    batches: Sequence[Sequence[str]]

    def part(self, rank: int) -> Path:
        return self.path.with_name(f"part-{rank:03d}.jsonl")

    def writing(self, rank: int) -> AbstractContextManager[None]:
        """Holds this rank's part against another program that would write it too."""
        return lock(self._lock(f"-{rank:03d}"), str(self.path))

    def left(self, share: Share) -> list[int]:
        """The batches this process has to ask: those dealt to it that are in no file yet.

        Its own part is cut to whole batches. Raises ValueError when a line of any part was written under other
        conditions, or is of a Sample that is not next in one of these batches; then nothing is changed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        own = self.part(share.rank)
        with self._joining():
            done = {index for file in self._files() for index, _ in self._whole(file)}
            if own.exists():
                os.truncate(own, sum(len(content) for _, content in self._whole(own)))
        return [index for index in range(share.rank, len(self.batches), share.world) if index not in done]

    def is_joined(self) -> bool:
        return self.path.exists() and len(list(self._whole(self.path))) == len(self.batches)

    def join(self) -> bool:
        """Puts the parts together once every batch is there; whether this call did it."""
        with self._joining():
            found: dict[int, bytes] = {}
            if not (joined := self.is_joined()):
                for file in self._files():
                    found |= dict(self._whole(file))
                if len(found) < len(self.batches):
                    return False
                with replacing(self.path) as temporary:
                    temporary.write_bytes(b"".join(found[index] for index in range(len(self.batches))))
            for part in self._parts():
                part.unlink()
            return not joined

    def _joining(self) -> AbstractContextManager[None]:
        """Parts vanish when they are joined, so whoever reads them all holds this for that moment."""
        return lock(self._lock(""), str(self.path), wait=True)

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob("part-*.jsonl"))

    def _files(self) -> list[Path]:
        """The joined file is among them: one that was cut is mended."""
        return [file for file in (self.path, *self._parts()) if file.exists()]

    def _lock(self, name: str) -> Path:
        """Outside the folder, which may be deleted to predict again."""
        return self.path.parent.with_name(f".{self.path.parent.name}{name}.lock")

    def _whole(self, file: Path) -> Iterator[tuple[int, bytes]]:
        """Number and lines of each whole batch in a file; a part of one may follow them, and half a line."""
        lines = whole_lines(file)
        records = [parse(file, number, line) for number, line in enumerate(lines, start=1)]
        for found, _ in records:
            require_same(file, found, self.conditions)
        uids = [prediction.uid for _, prediction in records]
        first = {batch[0]: index for index, batch in enumerate(self.batches)}
        at = 0
        while at < len(uids):
            index = first.pop(uids[at], None)
            batch = self.batches[index] if index is not None else [""]
            here = uids[at : at + len(batch)]
            wrong = next((n for n, (uid, wanted) in enumerate(zip(here, batch, strict=False)) if uid != wanted), None)
            if wrong is not None:
                raise ValueError(f"{file} line {at + wrong + 1} is not the Sample that comes next; {REMEDY}")
            assert index is not None
            if len(here) == len(batch):
                yield index, b"".join(lines[at : at + len(batch)])
            at += len(batch)
