"""Media shards: readable by plain webdataset, found by key, appended to and never rewritten, checked at opening."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from instructblip.data import shards
from instructblip.data.media import BadMedia, Place
from instructblip.data.shards import MediaPool


def picture(number: int, form: str = "JPEG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (6, 5), (number % 256, 7, 9)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "coco"
    folder.mkdir()
    shards.append(folder, ((str(n), picture(n)) for n in range(7)), shard_size=3)
    assert len(list(folder.glob("*.tar"))) == 3
    return folder


def test_every_key_gives_its_bytes(pool: Path) -> None:
    opened = MediaPool(pool)
    assert len(opened) == 7 and "3" in opened and "9" not in opened
    assert all(opened.read(str(n)) == picture(n) for n in range(7))
    again = pickle.loads(pickle.dumps(opened))
    assert again.read("6") == picture(6)


def test_plain_webdataset_reads_the_tars(pool: Path) -> None:
    code = "import sys, webdataset as wds; print([(s['__key__'], len(s['jpg'])) for s in wds.WebDataset(sys.argv[1], shardshuffle=False)])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(pool / "coco-000000.tar")], capture_output=True, text=True
    )
    assert done.stdout.strip() == str([(str(n), len(picture(n))) for n in range(3)]), done.stderr


def test_appending_leaves_old_shards_alone(pool: Path) -> None:
    before = {path.name: path.read_bytes() for path in pool.iterdir()}
    shards.append(pool, [("new", picture(50, "PNG"))], shard_size=3)
    assert {name: (pool / name).read_bytes() for name in before} == before
    assert MediaPool(pool).read("new") == picture(50, "PNG") and (pool / "coco-000003.tar").exists()


def test_writing_twice_gives_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    other = tmp_path / "again" / "coco"
    other.mkdir(parents=True)
    shards.append(other, ((str(n), picture(n)) for n in range(7)), shard_size=3)
    assert all((other / path.name).read_bytes() == path.read_bytes() for path in pool.iterdir())


def test_a_tar_without_index_is_removed_and_never_read(pool: Path) -> None:
    (pool / "coco-000003.tar").write_bytes((pool / "coco-000000.tar").read_bytes())
    assert len(MediaPool(pool)) == 7
    shards.append(pool, [("new", picture(8))], shard_size=3)
    assert len(MediaPool(pool)) == 8


@pytest.mark.parametrize("cut", [0, 1, 512, 1000, 2047])
def test_a_tar_cut_short_is_an_error_at_opening(pool: Path, cut: int) -> None:
    tar = pool / "coco-000001.tar"
    size = tar.stat().st_size
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(ValueError, match=rf"coco-000001.tar has {cut:,} bytes where its index was made for {size:,}"):
        MediaPool(pool)


def test_a_missing_tar_is_an_error_at_opening(pool: Path) -> None:
    (pool / "coco-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"coco-000001\.tar has 0 bytes"):
        MediaPool(pool)


def test_changed_bytes_are_noticed_at_reading(pool: Path) -> None:
    tar = pool / "coco-000000.tar"
    content = bytearray(tar.read_bytes())
    content[512 + 200] ^= 1
    tar.write_bytes(content)
    with pytest.raises(BadMedia, match="is not the picture '0'"):
        MediaPool(pool).read("0")


def test_a_broken_index_is_named(pool: Path) -> None:
    (pool / "coco-000002.arrow").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"coco-000002\.arrow is not a media index"):
        MediaPool(pool)


def test_unknown_key_and_empty_pool(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(BadMedia, match="not in the media pool"):
        MediaPool(pool).read("77")
    with pytest.raises(ValueError, match="no media index"):
        MediaPool(tmp_path / "nothing")


def test_linked_pictures_stay_where_they_are(tmp_path: Path) -> None:
    folder, source = tmp_path / "coco", tmp_path / "photos" / "a.jpg"
    source.parent.mkdir()
    source.write_bytes(b"before" + picture(3) + b"after")
    with shards.Shards(folder, folder, "coco", 10) as writer:
        digest = hashlib.sha256(picture(3)).hexdigest()
        writer.link("a", Place(source, 6, len(picture(3))), len(picture(3)), digest)
    assert MediaPool(folder).read("a") == picture(3)
    assert not list(folder.glob("*.tar"))


def test_a_shard_left_by_an_exception_is_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    with pytest.raises(KeyboardInterrupt), shards.Shards(folder, folder, "coco", 2) as writer:
        for number in range(3):
            writer.add(str(number), picture(number), hashlib.sha256(picture(number)).hexdigest())
        raise KeyboardInterrupt
    assert sorted(path.name for path in folder.iterdir()) == ["coco-000000.arrow", "coco-000000.tar"]


@pytest.mark.parametrize("key", ["-4wsuPCjDBc_5_15-0of4", "123", "x" * 90])
def test_plain_keys_name_their_members(key: str) -> None:
    assert shards.member_name(key) == key


def test_every_key_has_a_member_of_its_own_that_plain_webdataset_reads(tmp_path: Path) -> None:
    keys = [
        "../x",
        "..%2Fx",
        "/etc/x",
        "a.b",
        "a%2Eb",
        "a/b",
        "a b",
        "é",
        "a~b",
        ".",
        "..",
        "C:\\x",
        "x" * 91,
        "x" * 92,
        "é" * 60,
    ]
    folder = tmp_path / "coco"
    shards.append(folder, ((key, picture(n)) for n, key in enumerate(keys)), shard_size=100)
    opened = MediaPool(folder)
    assert all(opened.read(key) == picture(n) for n, key in enumerate(keys))
    with tarfile.open(folder / "coco-000000.tar") as tar:
        names = tar.getnames()
    assert len(set(names)) == len(keys) and all(re.fullmatch(r"[A-Za-z0-9_%-]{1,90}\.jpg", name) for name in names)
    code = "import sys, webdataset as wds; print(sum(set(s) >= {'__key__', 'jpg'} for s in wds.WebDataset(sys.argv[1], shardshuffle=False)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder / "coco-000000.tar")], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(len(keys)), done.stderr


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="empty media key"):
        shards.member_name("")


def test_code_in_data_is_not_run_and_shell_urls_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"import instructblip.data.shards, webdataset as wds; list(wds.WebDataset('pipe:touch {marker}', shardshuffle=False))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and not marker.exists()
