"""A sweep of runs: which jobs it has, what became of each, and the table of all at its end.

Every job keeps a record under `${paths.runs}/.sweeps/<sweep>/`, so that the table also tells of jobs that ran on other
machines, failed or never began. The same command names the same sweep: it goes on with what is missing.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from instructblip.files import read_json, write_json

GPUS = Path("/proc/driver/nvidia/gpus")  # one folder a GPU; asking torch would load it into every waiting job
LOOK = 2.0  # seconds between two looks at the queue, or at a slot


@dataclass(frozen=True)
class Job:
    """One of a sweep; `label` is its run's name, or its overrides where a program has no runs."""

    number: int
    label: str


@dataclass(frozen=True)
class Record:
    """What became of a job: waiting, running, done, failed, refused, interrupted."""

    label: str
    state: str
    seconds: float = 0.0
    message: str = ""


def kept(
    folder: Path, job: Job, body: Callable[[], object], place: AbstractContextManager[None],
    refused: Callable[[Exception], str | None],
) -> None:  # fmt: skip
    """Runs a job once it has its `place` and records what becomes of it: its failure is the sweep's to tell, not the
    launcher's. `refused` gives the message of an error that is addressed to the user, else None.
    """
    with place:
        _kept(folder, job, body, refused)


def _kept(folder: Path, job: Job, body: Callable[[], object], refused: Callable[[Exception], str | None]) -> None:
    began = time.monotonic()

    def record(state: str, message: str = "") -> None:
        _write(folder, job.number, Record(job.label, state, time.monotonic() - began, message))

    record("running")
    try:
        body()
    except Exception as error:
        told = refused(error)
        record("failed" if told is None else "refused", told or f"{type(error).__name__}: {error}")
        if told is None:
            Console(stderr=True).print_exception()
    except BaseException as stop:
        record("interrupted", f"{type(stop).__name__} {stop}")  # a requeued job's next start writes over it
        raise
    else:
        record("done")


@contextmanager
def slot(folder: Path, slots: int, devices: int) -> Iterator[None]:
    """One of `slots` places on this machine, waited for, and the `devices` GPUs that belong to it."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [(folder / f"slot-{number}").open("w") for number in range(slots)]
    try:
        number = _first_free([place.fileno() for place in places])
        if GPUS.is_dir():
            mine = range(number * devices, (number + 1) * devices)
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, mine))
        yield
    finally:
        for place in places:
            place.close()  # and with it the lock; a killed process gives its own back as well


def slots_here(devices: int) -> int:
    """How many jobs of `devices` GPUs this machine takes at once; one where there is no GPU."""
    return max(1, len(list(GPUS.iterdir())) // devices) if GPUS.is_dir() else 1


def begin(folder: Path, jobs: Sequence[Job]) -> None:
    """Enters every job as waiting. Raises ValueError when two of them would write one run directory."""
    labels = [job.label for job in jobs]
    for job in jobs:
        if (first := labels.index(job.label)) != job.number:
            raise ValueError(
                f"jobs {first} and {job.number} of the sweep are both {job.label}: what tells them apart is not part "
                "of a run's name (trainer, logger, paths); give each a name=..."
            )
        _write(folder, job.number, Record(job.label, "waiting"))


def await_queue(folder: Path) -> None:
    """Waits until none of the sweep's SLURM jobs is in the queue, as after one of them died without a word."""
    arrays = [path.name.split("_")[0] for path in (folder / ".submitit").glob("*_*") if path.is_dir()]
    arrays += [path.name for path in (folder / ".submitit").glob("*") if re.fullmatch(r"\d+", path.name)]
    if not arrays or not shutil.which("squeue"):
        return
    command = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(sorted(set(arrays)))}"]
    while subprocess.run(command, capture_output=True, text=True).stdout.strip():
        time.sleep(LOOK)


def end(folder: Path, jobs: Sequence[Job]) -> bool:
    """Prints what became of every job. Returns whether all went well."""
    records = [Record(**read_json(_path(folder, job.number))) for job in jobs]
    table = Table("job", Column("run", overflow="fold"), "state", "seconds", "message")
    for job, record in zip(jobs, records, strict=True):
        table.add_row(str(job.number), record.label, record.state, f"{record.seconds:.0f}", escape(record.message))
    console = Console()
    console.print(table)
    left = [record for record in records if record.state != "done"]
    if left:
        console.print(f"{len(left)} of {len(jobs)} jobs are not done; the same command goes on with them")
    return not left


def _first_free(places: Sequence[int]) -> int:
    while True:
        for number, place in enumerate(places):
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return number
        time.sleep(LOOK)


def _path(folder: Path, number: int) -> Path:
    return folder / f"job-{number:04d}.json"


def _write(folder: Path, number: int, record: Record) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(_path(folder, number), asdict(record))
