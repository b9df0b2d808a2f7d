"""A large pool's lookup in a file: made once, shared, and never believed when the shards have changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from instructblip.data import lookup, shards
from instructblip.data.keys import key_hash
from instructblip.data.media import BadMedia
from instructblip.data.shards import MediaPool
from tests.data.test_shards import picture


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lookup, "LARGE", 5)
    folder = tmp_path / "coco"
    folder.mkdir()
    shards.append(folder, ((str(n), picture(n)) for n in range(7)), shard_size=3)
    return folder


def kept(folder: Path) -> list[Path]:
    return list(folder.glob(".lookup-*"))


def test_a_large_pool_is_sorted_once_and_mapped(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = MediaPool(pool)
    assert len(kept(pool)) == 1 and all(first.read(str(n)) == picture(n) for n in range(7))
    monkeypatch.setattr(lookup, "_made", None)
    again = MediaPool(pool)
    assert isinstance(again._hashes.base, np.memmap) and not again._opened, "no index is read before it is needed"
    assert all(again.read(str(n)) == picture(n) for n in range(7)) and "7" not in again


def test_a_small_pool_leaves_no_file(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LARGE", 8)
    assert len(MediaPool(pool)) == 7 and not kept(pool)


def test_new_shards_are_found_and_the_old_file_goes(pool: Path) -> None:
    MediaPool(pool)
    before = kept(pool)
    shards.append(pool, [("new", picture(50))], shard_size=3)
    assert MediaPool(pool).read("new") == picture(50)
    assert len(kept(pool)) == 1 and kept(pool) != before


def test_a_tar_that_changed_since_is_still_an_error_at_opening(pool: Path) -> None:
    MediaPool(pool)
    tar = pool / "coco-000001.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"coco-000001\.tar has 700 bytes"):
        MediaPool(pool)
    tar.unlink()
    with pytest.raises(ValueError, match=r"coco-000001\.tar has 0 bytes"):
        MediaPool(pool)


def test_a_folder_that_cannot_be_written_is_sorted_in_memory(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert MediaPool(pool).read("3") == picture(3) and not kept(pool)


def test_keys_with_one_hash_are_told_apart(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "key_hash", lambda key: 5 if key in ("a", "b", "c") else key_hash(key))
    shards.append(pool, [("a", picture(20)), ("b", picture(21))], shard_size=1)
    opened = MediaPool(pool)
    assert opened.read("a") == picture(20) and opened.read("b") == picture(21)
    with pytest.raises(BadMedia, match="not in the media pool"):
        opened.read("c")


def test_more_files_than_may_be_open(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_OPEN", 2)
    opened = MediaPool(pool)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert all(opened.read(str(n)) == picture(n) for n in (0, 3, 6, 0))
    assert len(opened._files) == 2 and len(os.listdir("/proc/self/fd")) <= before + 2
