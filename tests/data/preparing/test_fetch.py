"""Fetching over processes: the order and the bytes of one process, a bounded window, a dead process is an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from instructblip.data import media
from instructblip.data.media import RawPool
from instructblip.data.preparing import fetch
from instructblip.data.preparing.fetch import Fetched, Fetcher, fetching, useful_workers
from instructblip.data.sample import MediaRef
from tests.conftest import ROOT


class Deadly(Fetcher):
    """A process that reads picture 13 is killed."""

    def __call__(self, refs: Sequence[MediaRef]) -> list[Fetched]:
        if any(ref.key == "13" for ref in refs):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(refs)


@pytest.fixture
def pool(tmp_path: Path) -> RawPool:
    for number in range(60):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_bytes(b"<html>")
    return RawPool("web", tmp_path, ("{key}.png",))


REFS = [MediaRef("web", str(number)) for number in range(61)]


def test_three_processes_give_what_one_gives(pool: RawPool) -> None:
    found = []
    for workers in (1, 3):
        with fetching(Fetcher(pool, 4, link=False), workers) as fetcher:
            found.append([*fetcher(REFS), *fetcher(REFS[:2])])
    assert found[0] == found[1] and [one.ref for one in found[0]] == [*REFS, *REFS[:2]]
    assert [one.ref.key for one in found[0] if one.bad] == ["5", "60"]


def test_no_more_than_the_window_is_asked_for(pool: RawPool) -> None:
    asked = 0

    class Counting(list[MediaRef]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal asked
            for ref in super().__iter__():
                asked += 1
                yield ref

    with fetching(Fetcher(pool, 4, link=False), 2) as fetcher:
        next(fetcher(Counting(REFS * 10)))
        assert asked - len(REFS) * 10 <= (2 * fetch.AHEAD + 1) * fetch.TOGETHER


def test_a_dead_process_is_a_named_error(pool: RawPool) -> None:
    with (
        pytest.raises(ValueError, match=r"a process died while it read pictures.*pool web.*fewer workers="),
        fetching(Deadly(pool, 4, link=False), 2) as fetcher,
    ):
        list(fetcher(REFS))


def test_processes_end_with_a_killed_parent(pool: RawPool, tmp_path: Path) -> None:
    code = (
        "import sys, time, os\nfrom pathlib import Path\nfrom instructblip.data.preparing.fetch import *\n"
        "if __name__ == '__main__':\n"
        " with fetching(Fetcher(RawPool('web', Path(sys.argv[1]), ('{key}.png',)), 4, False), 2) as fetch:\n"
        "  next(fetch([MediaRef('web', str(n)) for n in range(60)]))\n"
        "  import multiprocessing\n  print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n  time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), str(pool.root)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert parent.stdout is not None
    children = list(map(int, parent.stdout.readline().split()))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children and not any(alive(child) for child in children)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_picture_is_decoded_once(pool: RawPool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(fetch, "decode", lambda data: decoded.append(data) or media.decode(data))
    with fetching(Fetcher(pool, 4, link=False), 1) as fetcher:
        list(fetcher(REFS[:5]))
    assert len(decoded) == 5


def test_a_truncated_picture_and_a_file_too_large_are_bad(pool: RawPool, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    (pool.root / "1.png").write_bytes(buffer.getvalue()[:-50])
    monkeypatch.setattr(media, "MAX_BYTES", 2000)
    (pool.root / "2.png").write_bytes(bytes(2001))
    found = Fetcher(pool, 4, link=False)(REFS[1:4])
    assert [bool(one.bad) for one in found] == [True, True, False]
    assert "2,001 bytes are over 2,000" in str(found[1].bad)


@pytest.mark.parametrize(
    ("wanted", "pictures", "clips", "given"),
    [(3, 0, False, 1), (3, 256, False, 1), (3, 257, False, 2), (3, 9999, False, 3), (3, 2, True, 2)],
)
def test_processes_are_started_for_work_that_is_worth_it(wanted: int, pictures: int, clips: bool, given: int) -> None:
    assert useful_workers(wanted, pictures, clips) == given
    with pytest.raises(ValueError, match="workers=0"):
        useful_workers(0, pictures, clips)
