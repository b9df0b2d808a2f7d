"""Plain webdataset reads what is written here, and tars that others wrote are used where they lie."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

from instructblip import recipes
from instructblip.data.export import export
from instructblip.data.media import decode
from instructblip.data.preparing.prepare import prepare
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.data.shards import MediaPool, append
from instructblip.data.tables import Table, table_path, write_table
from tests.conftest import World, composed
from tests.data.test_shards import picture

PLAIN = """
import pickle, sys, webdataset as wds
sys.stdout.buffer.write(pickle.dumps(list(wds.WebDataset(sys.argv[1:], shardshuffle=False))))
"""
FACTS = """name: mine
form: caption
templates: caption
splits: {train: {reader: webdataset, files: ['*.tar']}}
train: [train]
"""


def plain(*tars: Path) -> list[dict[str, Any]]:
    """The samples as any user of webdataset gets them, in a process that knows nothing of this package."""
    environment = {name: value for name, value in os.environ.items() if name != "WDS_SECURE"}
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, *map(str, tars)]
    done = subprocess.run(command, capture_output=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr.decode()
    found: list[dict[str, Any]] = pickle.loads(done.stdout)  # of the process just started
    return found


def test_media_shards_are_plain_webdataset(world: World) -> None:
    folder = world.data / "media/coco"
    found = {sample["__key__"]: sample["jpg"] for sample in plain(*sorted(folder.glob("*.tar")))}
    pool = MediaPool(folder)
    assert len(found) == len(pool) > 20 and all(pool.read(key) == content for key, content in found.items())


def test_clips_and_several_pictures_are_exported_in_order(tmp_path: Path) -> None:
    """Frames and picture options beside one JSON, read back by plain webdataset."""
    pictures = {f"v-{n}of4": picture(n) for n in range(4)} | {"option.1": picture(9, "PNG")}
    (tmp_path / "media/msvd").mkdir(parents=True)
    append(tmp_path / "media/msvd", pictures.items(), 10)
    frames = tuple(MediaRef("msvd", f"v-{n}of4") for n in range(4))
    option = MediaRef("msvd", "option.1", role="choice:0")
    samples = [
        Sample("msvd_qa/test/1", "msvd_qa", "test", Form.vqa, (*frames, option), {"question": "?"}, (Answer("a"),)),
        Sample("msvd_qa/test/2", "msvd_qa", "test", Form.vqa, frames[:1], {"question": "é"}, (Answer("b"),)),
    ]
    write_table(table_path(tmp_path, "msvd_qa", "test"), samples)
    assert export(tmp_path, "msvd_qa", "test", tmp_path / "out", shard_size=1) == 2
    first, second = plain(*sorted((tmp_path / "out").glob("*.tar")))
    kinds = ["jpg", "1.jpg", "2.jpg", "3.jpg", "4.png"]
    assert [first[kind] for kind in kinds] == list(pictures.values())
    keys = [ref["key"] for ref in json.loads(first["json"])["media"]]
    assert keys == list(pictures) and json.loads(first["json"])["uid"] == "msvd_qa/test/1"
    assert {kind for kind in second if not kind.startswith("__")} == {"jpg", "json"}


def foreign(folder: Path) -> None:
    """Two tars as img2dataset writes them, and one by hand with folders, capitals and gaps."""
    folder.mkdir(parents=True)
    for shard in range(2):
        with (folder / f"{shard:05d}.tar").open("wb") as file, wds.TarWriter(file, encoder=False) as tar:
            for n in range(3):
                key, caption = f"{shard:05d}{n:04d}", f"picture {shard} {n}"
                facts = json.dumps({"caption": caption, "url": "http://x", "status": "success"}).encode()
                files = {"jpg": picture(10 * shard + n), "json": facts, "txt": caption.encode()}
                tar.write({"__key__": key, **files})
    byhand = {
        "a/one.JPG": picture(30), "a/one.txt": b" a cup \n", "a/two.png": picture(31, "PNG"),
        "a/two.json": b'{"caption": "two"}', "a/none.jpg": picture(32), "a/text.txt": b"alone",
    }  # fmt: skip
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name, content in byhand.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))


def prepared(tmp_path: Path, media: str = "link") -> dict[str, Any]:
    path = tmp_path / "mine.yaml"
    path.write_text(FACTS)
    config = composed(
        "prepare", f"recipe={path}", f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data", f"media={media}"
    )
    return prepare(recipes.load(str(path)), "train", config, lambda items, _: items)


@pytest.mark.parametrize("media", ["link", "copy"])
def test_foreign_tars_are_used_where_they_lie(tmp_path: Path, media: str) -> None:
    foreign(tmp_path / "raw/mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "raw/mine").iterdir()}
    entry = prepared(tmp_path, media)
    assert entry["rows"] == 8 and {reason: facts["count"] for reason, facts in entry["dropped"].items()} == {
        "no caption": 1, "no picture": 1
    }  # fmt: skip
    pool, table = MediaPool(tmp_path / "data/media/mine"), Table(table_path(tmp_path / "data", "mine", "train"))
    samples = [table.sample(row) for row in range(len(table))]
    assert [sample.answers[0].text for sample in samples][-3:] == ["picture 1 2", "a cup", "two"]
    shades = [decode(pool.read(sample.media[0].key)).getpixel((2, 2)) for sample in samples]
    assert [round(shade[0]) for shade in shades] == pytest.approx([0, 1, 2, 10, 11, 12, 30, 31], abs=2)  # type: ignore[index]
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "raw/mine").iterdir()}
    assert bool(list((tmp_path / "data/media").rglob("*.tar"))) == (media == "copy")


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 1500, 2048, 3000, 5120])
def test_a_foreign_tar_that_is_cut_is_named(tmp_path: Path, cut: int) -> None:
    foreign(tmp_path / "raw/mine")
    tar = tmp_path / "raw/mine/00001.tar"
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"00001\.tar is not a whole tar"):
        prepared(tmp_path)
