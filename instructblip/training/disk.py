"""What becomes of a run whose disk takes no more."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instructblip.choices import OnFullDisk


class Unwritable(OSError):
    """A file or folder that could not be written; what was written before is as it was."""


def unwritable(path: Path, error: Exception) -> Unwritable:
    """The error that names the path and the bytes that are free there."""
    there = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(there).free
    return Unwritable(f"{path} cannot be written ({error}), with {free:,} bytes free in {there}")


def append(path: Path, text: str) -> None:
    """All of the text or nothing, so that what comes next begins where it should."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError:
        if path.exists():
            os.truncate(path, before)
        raise


class Disk:
    """Whether a run goes on without rows, lines and logs that cannot be written, and how many these were."""

    def __init__(self, on_full: OnFullDisk) -> None:
        self.on_full, self.failures = on_full, 0

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Raises Unwritable unless `on_full_disk` lets the run go on."""
        try:
            yield
        except OSError as error:
            if self.on_full is OnFullDisk.stop:
                raise unwritable(path, error) from error
            self.failures += 1
            print(f"left out ({self.failures} so far): {unwritable(path, error)}", file=sys.stderr, flush=True)
