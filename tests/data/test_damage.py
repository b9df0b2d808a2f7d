"""Files of a prepared world that are cut, missing, swapped or foreign: a named error, or a counted skip; never fewer rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from instructblip.config.training import TrainConfig
from instructblip.data import shards
from instructblip.data.media import BadMedia
from instructblip.data.shards import MediaPool
from instructblip.data.steps import Step
from instructblip.data.tables import END, Table, table_path, write_table
from instructblip.training.datamodule import StepData, collator, training_set
from tests.conftest import World
from tests.data.test_tables import SAMPLES

Tiny = Callable[..., TrainConfig]
FOREIGN = {
    "empty": b"",
    "text": b"uid,question\n" * 100,
    "picture": b"\xff\xd8\xff\xe0" + bytes(range(256)) * 9,
    "only an end": END,
    "noise": np.random.default_rng(0).bytes(5000) + END,
}


@pytest.fixture
def data(world: World, tmp_path: Path) -> Path:
    """A copy of the prepared world, for breaking."""
    shutil.copytree(world.data, tmp_path / "data")
    return tmp_path / "data"


def opened(tiny: Tiny, data: Path, *overrides: str) -> StepData:
    config = tiny(f"paths.data={data}", *overrides)
    return StepData(config, training_set(config), collator(config, encoder_decoder=False), first=0)


def read(steps: StepData, count: int) -> list[Step]:
    return [steps.steps(0, count).read(number) for number in range(count)]


def cuts(size: int, count: int) -> list[int]:
    """Offsets spread over a file, and all those near its end and its start."""
    spread = np.linspace(0, size - 1, count).astype(int).tolist()
    return sorted({*spread, *range(min(20, size)), *range(max(0, size - 20), size)})


def test_a_table_cut_at_any_byte_is_never_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between two batches, where Arrow itself reads a shorter table, and without a manifest beside it."""
    path = tmp_path / "vsr/t.arrow"
    monkeypatch.setattr("instructblip.data.tables.BATCH_ROWS", 1000)
    write_table(path, SAMPLES * 700)
    whole = path.read_bytes()
    ends = [at for at in range(8, len(whole), 8) if whole[at : at + 4] == END[:4]]  # where a message begins
    assert len(ends) >= 4, "more than one batch"
    for cut in (*cuts(len(whole), 100), *ends):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"t\.arrow (is|has) .*recipe=vsr"):
            Table(path)
    path.write_bytes(whole)
    assert len(Table(path)) == 2100


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_no_table_and_no_index(tmp_path: Path, content: bytes) -> None:
    for name in ("t.arrow", "coco-000000.arrow"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.arrow is not a table.*prepare it again"):
        Table(tmp_path / "t.arrow")
    with pytest.raises(ValueError, match=r"coco-000000\.arrow is not a media index.*prepare\.py again"):
        MediaPool(tmp_path, [tmp_path / "coco-000000.arrow"])


def test_arrow_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    other = pa.table({"uid": ["a"], "hash": [1]})
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as sink, pa.ipc.new_stream(sink, other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(ValueError, match="table of other columns: uid, hash"):
        Table(tmp_path / "t.arrow")
    with pa.OSFile(str(tmp_path / "i.arrow"), "wb") as sink, pa.ipc.new_file(sink, other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(ValueError, match=r"i\.arrow is not a media index, its columns are uid, hash"):
        MediaPool(tmp_path, [tmp_path / "i.arrow"])


def test_a_table_that_its_manifest_does_not_describe_is_refused(tiny: Tiny, data: Path) -> None:
    """One of the right columns and another size: copied from elsewhere, or half of a newer one."""
    write_table(table_path(data, "vqav2", "train"), SAMPLES)
    with pytest.raises(ValueError, match=r"vqav2/train\.arrow has [\d,]+ bytes where its manifest\.json says [\d,]+"):
        opened(tiny, data)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vsr/t.arrow"
    write_table(path, SAMPLES)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"question": "none"', b'"question"- "none"'))
    table = Table(path)
    assert table.sample(0) == SAMPLES[0]
    with pytest.raises(ValueError, match=r"row 1 of .*t\.arrow is damaged .*prepare it again"):
        table.sample(1)


def test_a_missing_table_and_an_empty_one_stop_the_start(tiny: Tiny, data: Path) -> None:
    path = table_path(data, "vqav2", "train")
    path.unlink()
    with pytest.raises(
        ValueError, match=r"no table .*vqav2/train\.arrow; write it with `python prepare\.py recipe=vqav2`"
    ):
        opened(tiny, data)
    (path.with_name("manifest.json")).unlink()
    write_table(path, [])
    with pytest.raises(ValueError, match="has no rows"):
        opened(tiny, data)


def test_an_index_cut_at_any_byte_is_named(data: Path) -> None:
    index = next((data / "media/coco").glob("*.arrow"))
    whole = index.read_bytes()
    for cut in cuts(len(whole), 60):
        index.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=rf"{index.name} is not a media index"):
            MediaPool(data / "media/coco")


def test_a_tar_cut_at_any_byte_stops_the_start(tiny: Tiny, data: Path) -> None:
    tar = next((data / "media/coco").glob("*.tar"))
    size = tar.stat().st_size
    for cut in reversed(cuts(size, 60)):
        os.truncate(tar, cut)
        with pytest.raises(ValueError, match=rf"{tar.name} has {cut:,} bytes where its index was made for {size:,}"):
            MediaPool(data / "media/coco")
    with pytest.raises(ValueError, match=rf"{tar.name} has 0 bytes"):
        opened(tiny, data)


@pytest.mark.parametrize("lost", ["*.arrow", "*.tar", "*"])
def test_a_lost_index_or_shard_stops_the_start(tiny: Tiny, data: Path, lost: str) -> None:
    """Of several shards; a tar without its index looks like an interrupted writing, so the tables are asked."""
    folder = data / "media/coco"
    pool = MediaPool(folder)
    tables = (Table(table_path(data, name, "train")) for name in ("coco_caption", "vqav2"))
    keys = sorted({key for table in tables for _, key in table.shown(np.arange(len(table)))})
    pictures = [(key, pool.read(key)) for key in keys]
    shutil.rmtree(folder)
    folder.mkdir()
    shards.append(folder, pictures, shard_size=-(-len(keys) // 3))
    assert opened(tiny, data)
    for path in folder.glob(f"coco-000001{lost}"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"pictures looked up for .* are not in the media pool|000001\.tar has 0 bytes"
    ):
        opened(tiny, data)


def test_no_pool_at_all_is_named(tiny: Tiny, data: Path) -> None:
    shutil.rmtree(data / "media/coco")
    with pytest.raises(ValueError, match=r"no media index in .*media/coco"):
        opened(tiny, data)


def test_a_tar_of_another_pool_with_the_same_size_is_counted_picture_by_picture(tiny: Tiny, data: Path) -> None:
    """The size fits and the bytes do not: every picture is skipped, named, and its place kept; no row is lost."""
    steps = opened(tiny, data)
    whole = read(steps, 2)
    for tar in (data / "media/coco").glob("*.tar"):
        content = tar.read_bytes()
        tar.write_bytes(content[512:] + content[:512])
    damaged = read(steps, 2)
    assert [len(step.bad) for step in damaged] == [8, 8] and all("that was indexed" in line for line in damaged[0].bad)
    assert [len(step.batches) for step in damaged] == [len(step.batches) for step in whole]
    assert not any(batch.loss_weight.any() for step in damaged for batch in step.batches)


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.9])
def test_one_changed_byte_costs_at_most_one_picture(tiny: Tiny, data: Path, at: float) -> None:
    steps = opened(tiny, data)
    tar = max((data / "media/coco").glob("*.tar"), key=lambda path: path.stat().st_size)
    content = bytearray(tar.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    tar.write_bytes(content)
    bad = {line.split(": ", 1)[1] for step in read(steps, 12) for line in step.bad}
    assert len(bad) <= 1
    seen = [uid for step in read(steps, 12) for batch in step.batches for uid in batch.uids if uid != "filler"]
    assert len(seen) + sum(len(step.bad) for step in read(steps, 12)) == 12 * 8


def test_a_linked_picture_that_is_gone_is_a_counted_skip(tmp_path: Path) -> None:
    from instructblip.data.media import Place
    from tests.data.test_shards import picture

    source, folder = tmp_path / "a.jpg", tmp_path / "coco"
    source.write_bytes(picture(1))
    with shards.Shards(folder, folder, "coco", 10) as writer:
        writer.link("a", Place(source), len(picture(1)), "0" * 64)
    pool = MediaPool(folder)
    source.unlink()
    with pytest.raises(BadMedia, match=r"a\.jpg at byte 0: cannot be read \(No such file or directory\)"):
        pool.read("a")
