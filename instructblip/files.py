"""Files that are whole or absent, and files that say what is wrong with them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

T = TypeVar("T")
NOT_JSON = (ValueError, RecursionError)  # also bytes that are no text, numbers too long, nesting too deep


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success it is synced to disk and takes the name, else it is removed.

    Beside the target, because a rename is only atomic within one file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed writers; only for who holds the folder's lock."""
    for path in folder.glob(".*.tmp"):
        path.unlink() if path.is_file() else shutil.rmtree(path)


def sync(path: Path) -> None:
    """Flushes a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises ValueError with file, line and remedy when the text is not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except NOT_JSON as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may be cut short: download it again") from error


def read_text(path: Path) -> str:
    """UTF-8, a byte order mark not counted. Raises ValueError naming the file when it is none, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); download it again") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error


def read_yaml(path: Path, schema: type[T], facts: Any = None) -> T:
    """The YAML as a dataclass, or in its place the `facts` made of it. Raises ValueError naming file and field."""
    try:
        content = OmegaConf.load(path) if facts is None else facts
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), content)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def read_jsonl(path: Path) -> Iterator[Any]:
    """One value a line; raises ValueError with file, line number and remedy."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except NOT_JSON as error:
                    raise ValueError(f"{path} line {number} is not valid JSON ({error}); download it again") from error


def sha256(path: Path) -> str:
    """Raises ValueError naming a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error


@contextmanager
def lock(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Holds `path` against other processes; it is free again when the holder ends, however it ends.

    Temporary files that a killed holder left beside it are removed. Where another holds it, `wait` waits for its end.
    Raises ValueError naming host, process and job of the holder, or a folder that cannot be written.
    """
    with _appending(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ValueError(f"{what} is being written by {file.read().strip()}; wait for it or stop it") from error
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID", "none")
        file.write(f"host {socket.gethostname()}, process {os.getpid()}, job {job}")
        file.flush()
        remove_leftovers(path.parent)
        yield


def _appending(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path.parent} cannot be written ({error.strerror})") from error
