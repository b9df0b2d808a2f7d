"""Preparing: goes on after an interruption, does nothing twice, and names file and remedy for every bad input."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from instructblip import pools, recipes
from instructblip.config.preparing import PrepareConfig
from instructblip.data.media import decode
from instructblip.data.preparing import fetch
from instructblip.data.preparing.manifest import summary
from instructblip.data.preparing.prepare import prepare
from instructblip.data.readers import registry
from instructblip.data.readers.base import Context
from instructblip.data.sample import MediaRef, Sample
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table, table_path
from instructblip.files import lock
from tests.conftest import World, composed, run_program
from tests.data.preparing.test_clips import clip
from tests.fixtures import real_tree

Make = Callable[..., PrepareConfig]


@pytest.fixture
def make(world: World, tmp_path: Path) -> Make:
    """A config over a copy of the small raw tree."""
    raw = tmp_path / "raw"
    shutil.copytree(world.raw, raw)

    def config(*overrides: str) -> PrepareConfig:
        paths = [f"paths.raw={raw}", f"paths.data={tmp_path}/data", "recipe=all", "check_counts=false", "shard_size=10"]
        return composed("prepare", *paths, *overrides)

    return config


def run(
    config: PrepareConfig, recipe: str = "vqav2", split: str = "train", progress: Any = lambda items, _: items
) -> dict[str, Any]:
    return prepare(recipes.load(recipe), split, config, progress)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_tables_shards_index_and_manifest(make: Make, tmp_path: Path) -> None:
    entry = run(make())
    table, pool = Table(table_path(tmp_path / "data", "vqav2", "train")), MediaPool(tmp_path / "data/media/coco")
    assert len(table) == entry["rows"] and entry["official_rows"] == 443757 and not entry["dropped"]
    assert all(table.sample(row).media[0].key in pool for row in range(len(table)))
    assert len(list((tmp_path / "data/media/coco").glob("*.tar"))) == 4, "40 pictures, 10 a tar"
    manifest = json.loads((tmp_path / "data/tables/vqav2/manifest.json").read_text())
    assert manifest["version"] == recipes.load("vqav2").data_version()
    assert set(manifest["splits"]["train"]["sources"]) == set(recipes.load("vqav2").splits["train"].files)


def test_pictures_are_stored_once_for_all_recipes(make: Make, tmp_path: Path) -> None:
    run(make(), "coco_caption", "train")
    before = tree(tmp_path / "data/media")
    run(make(), "vqav2", "train")
    assert tree(tmp_path / "data/media") == before


def test_a_second_run_does_nothing(make: Make, tmp_path: Path) -> None:
    assert run(make())["fresh"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.name != ".lock"}
    entry = run(make())
    assert not entry["fresh"] and "unchanged" in summary(entry)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.name != ".lock"}


def test_changed_annotations_are_prepared_again(make: Make, tmp_path: Path) -> None:
    run(make())
    path = tmp_path / "raw/vqav2/v2_OpenEnded_mscoco_train2014_questions.json"
    questions = json.loads(path.read_text())
    dropped = questions["questions"].pop()
    path.write_text(json.dumps(questions))
    entry = run(make())
    assert entry["fresh"] and entry["dropped"] == {
        "annotation without question": {"count": 1, "first": [f"vqav2/train/{dropped['question_id']}"]}
    }


@pytest.mark.parametrize("after", [0, 5, 15, 39])
def test_an_interrupted_run_goes_on(make: Make, tmp_path: Path, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(make(), progress=interrupted_after(after))
    assert not list((tmp_path / "data/tables").rglob("*.arrow")), "no table before its pictures"
    assert len(list((tmp_path / "data/media/coco").glob("*.arrow"))) == after // 10, "whole shards stay"
    assert not list((tmp_path / "data").rglob("*.tmp"))
    run(make())
    again = make(f"paths.data={tmp_path}/undisturbed")
    run(again)
    finished, undisturbed = tree(tmp_path / "data"), tree(tmp_path / "undisturbed")
    assert finished["tables/vqav2/train.arrow"] == undisturbed["tables/vqav2/train.arrow"]
    pools = [MediaPool(tmp_path / name / "media/coco") for name in ("data", "undisturbed")]
    assert len(pools[0]) == len(pools[1]) == 40
    table = Table(table_path(tmp_path / "data", "vqav2", "train"))
    keys = {table.sample(row).media[0].key for row in range(len(table))}
    assert len(keys) == 40 and all(pools[0].read(key) == pools[1].read(key) for key in keys)


def test_a_missing_raw_folder_names_files_and_source(make: Make) -> None:
    with pytest.raises(ValueError, match=r"missing .*questions\.json.*get it from https://s3") as refused:
        run(make("paths.raw=nowhere"))
    assert "paths.raw" in str(refused.value)


def test_malformed_json_names_the_file_and_line(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "raw/vqav2/v2_mscoco_train2014_annotations.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(ValueError, match=r"annotations\.json is not valid JSON .*download it again"):
        run(make())
    lines = tmp_path / "raw/vsr/data/splits/zeroshot/test.jsonl"
    lines.write_text(lines.read_text().replace('"label"', "label", 1))
    with pytest.raises(ValueError, match=r"test\.jsonl line 1 is not valid JSON"):
        run(make(), "vsr", "test")


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_picture_is_refused_or_left_out(make: Make, tmp_path: Path, damage: str) -> None:
    victim = sorted((tmp_path / "raw/coco/train2014").iterdir())[7]
    whole = victim.read_bytes()
    victim.unlink() if damage == "missing" else victim.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match="1 of 40 pictures are missing or broken") as refused:
        run(make())
    assert victim.name in str(refused.value) and "max_bad_media" in str(refused.value)
    assert len(MediaPool(tmp_path / "data/media/coco")) == 39, "the good ones are not lost"

    entry = run(make("max_bad_media=0.05"))
    lost = entry["dropped"]["picture missing or broken"]
    assert victim.name in entry["first_bad"][0], "why it was left out is kept"
    assert lost["count"] == 3 and entry["rows"] + 3 == len(read_questions(tmp_path))
    victim.write_bytes(whole)
    entry = run(make())
    assert entry["fresh"] and not entry["dropped"], "what was missing is asked for again"


def test_a_split_of_nothing_is_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "raw/vqav2/v2_mscoco_train2014_annotations.json"
    path.write_text(json.dumps({"annotations": []}))
    with pytest.raises(ValueError, match=r"vqav2/train has no row to prepare \(\d+ question without annotation\)"):
        run(make())


def test_what_cannot_be_read_or_written_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/tables/vqav2 cannot be written \(Not a directory\)"):
        run(make(f"paths.data={tmp_path}/file"))
    path = tmp_path / "raw/vqav2/v2_mscoco_train2014_annotations.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"annotations\.json cannot be read \(Is a directory\)"):
        run(make())


def read_questions(tmp_path: Path) -> list[Any]:
    return json.loads((tmp_path / "raw/vqav2/v2_OpenEnded_mscoco_train2014_questions.json").read_text())["questions"]


def test_counts_are_checked(make: Make) -> None:
    with pytest.raises(ValueError, match=r"rows where 443,757 are official.*check_counts=false"):
        run(make("check_counts=true"))


def test_double_ids_are_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "raw/coco/dataset_coco.json"
    rows = json.loads(path.read_text())
    rows["images"].append(next(row for row in rows["images"] if row["split"] == "val"))
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"id coco_caption/val/\d+ occurs twice"):
        run(make(), "coco_caption", "val")


def test_a_folder_of_another_recipe_version_is_refused(make: Make, tmp_path: Path) -> None:
    run(make())
    path = tmp_path / "data/tables/vqav2/manifest.json"
    path.write_text(path.read_text().replace(recipes.load("vqav2").data_version(), "0123456789ab"))
    with pytest.raises(ValueError, match=r"written by version 0123456789ab.*rebuild=true"):
        run(make())
    assert run(make("rebuild=true"))["fresh"]


def test_a_second_writer_is_refused(make: Make, tmp_path: Path) -> None:
    with (
        lock(tmp_path / "data/tables/vqav2/.lock", "x"),
        pytest.raises(ValueError, match=r"recipe vqav2 is being written by host \S+, process \d+"),
    ):
        run(make())


def test_the_bytes_do_not_depend_on_the_number_of_processes(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "WORTH", 1)
    sorted((tmp_path / "raw/coco/train2014").iterdir())[7].write_bytes(b"broken")
    for workers in (1, 3):
        run(make(f"workers={workers}", f"paths.data={tmp_path}/{workers}", "max_bad_media=0.1", "shard_size=7"))
    assert tree(tmp_path / "1") == tree(tmp_path / "3") and len(tree(tmp_path / "1")) > 10


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_the_rows_do_not_depend_on_how_many_are_read_at_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    sorted((tmp_path / "raw/coco/train2014").iterdir())[7].write_bytes(b"broken")
    run(make(f"paths.data={tmp_path}/whole", "max_bad_media=0.1"))
    monkeypatch.setattr("instructblip.data.preparing.prepare.CHUNK", chunk)
    run(make("max_bad_media=0.1"))
    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


def in_tars(make: Make, tmp_path: Path) -> int:
    """Moves the pictures of the raw tree into one tar, as a row's file name says; returns how many."""
    source = tmp_path / "raw/vsr/data/splits/zeroshot/test.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    names = {row["image"] for row in rows}
    files = {path.name: path for path in (tmp_path / "raw/coco").rglob("*.jpg")}
    found = {name: next(path for key, path in files.items() if key.endswith(name)) for name in sorted(names)}
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, path in found.items():
            tar.add(path, arcname=name)
    shutil.rmtree(tmp_path / "raw/coco")
    (tmp_path / "raw/coco").mkdir()
    shutil.move(tmp_path / "00000.tar", tmp_path / "raw/coco/00000.tar")
    return len(found)


@pytest.mark.parametrize("media", ["copy", "link"])
def test_pictures_in_tars_are_copied_or_linked_and_never_extracted(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: str
) -> None:
    count = in_tars(make, tmp_path)
    monkeypatch.setattr(pools, "load", lambda name: pools.Pool(layouts=["00000.tar/{key:0>12}.jpg"]))
    run(make(f"media={media}"), "vsr", "test")
    folder = tmp_path / "data/media/coco"
    pool, table = MediaPool(folder), Table(table_path(tmp_path / "data", "vsr", "test"))
    assert len(pool) == count and bool(list(folder.glob("*.tar"))) == (media == "copy")
    with tarfile.open(tmp_path / "raw/coco/00000.tar") as tar:
        for row in range(len(table)):
            key = table.sample(row).media[0].key
            assert pool.read(key) == tar.extractfile(f"{int(key):012d}.jpg").read()  # type: ignore[union-attr]
    assert [path.name for path in (tmp_path / "raw/coco").iterdir()] == ["00000.tar"]


def clips(files: Sequence[Path], context: Context) -> Iterator[Sample]:
    """A reader of clips, two questions each."""
    for name in ("-4wsuPCjDBc_5_15", "b.c"):
        for number in range(2):
            yield context.sample(f"{name}-{number}", MediaRef(context.pool, name, "video", f"{name}.mp4"))


@pytest.mark.parametrize("media", ["copy", "link"])
def test_clips_become_frames(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: str) -> None:
    monkeypatch.setitem(registry.READERS, "vsr", clips)
    monkeypatch.setattr(pools, "load", lambda name: pools.Pool())
    for name in ("-4wsuPCjDBc_5_15", "b.c"):
        clip(tmp_path / f"raw/coco/{name}.mp4", 40)
    entry = run(make(f"media={media}"), "vsr", "test")
    assert entry["rows"] == 4 and entry["frames"] == 4 and entry["pictures"] == {"wanted": 2, "bad": 0}
    table, pool = Table(table_path(tmp_path / "data", "vsr", "test")), MediaPool(tmp_path / "data/media/coco")
    assert [ref.key for ref in table.sample(0).shown] == [f"-4wsuPCjDBc_5_15-{i}of4" for i in range(4)]
    shown = [decode(pool.read(ref.key)).getpixel((9, 9)) for ref in table.sample(3).shown]
    assert [round((pixel[0] - 20) / 4) for pixel in shown] == [5, 15, 25, 35] and len(pool) == 8  # type: ignore[index]
    assert not run(make(), "vsr", "test")["fresh"]
    entry = run(make("frames=2"), "vsr", "test")
    assert entry["fresh"] and entry["frames"] == 2 and len(MediaPool(tmp_path / "data/media/coco")) == 12


def test_a_clip_half_stored_is_completed(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.READERS, "vsr", clips)
    monkeypatch.setattr(pools, "load", lambda name: pools.Pool())
    for name in ("-4wsuPCjDBc_5_15", "b.c"):
        clip(tmp_path / f"raw/coco/{name}.mp4", 40)
    with pytest.raises(KeyboardInterrupt):
        run(make("shard_size=3"), "vsr", "test", interrupted_after(1))
    assert len(MediaPool(tmp_path / "data/media/coco")) == 3
    run(make("shard_size=3"), "vsr", "test")
    pool = MediaPool(tmp_path / "data/media/coco")
    assert len(pool) == 8 and all(f"{name}-{i}of4" in pool for name in ("-4wsuPCjDBc_5_15", "b.c") for i in range(4))


def interrupted_after(count: int) -> Any:
    def bar(items: Iterable[Any], text: str) -> Iterable[Any]:
        for number, item in enumerate(items):
            if text.endswith("pictures") and number == count:
                raise KeyboardInterrupt
            yield item

    return bar


def test_linked_media_are_not_copied(make: Make, tmp_path: Path) -> None:
    run(make("media=link"))
    folder = tmp_path / "data/media/coco"
    assert not list(folder.glob("*.tar")) and len(MediaPool(folder)) == 40


def test_the_program_says_what_it_did_and_what_is_wrong(make: Make, tmp_path: Path) -> None:
    arguments = ["prepare.py", "recipe=[vsr]", f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data"]
    refused = run_program(*arguments)
    assert refused.returncode == 2 and "1,222 are official" in refused.stderr and "Traceback" not in refused.stderr
    done = run_program(*arguments, "check_counts=false")
    assert done.returncode == 0 and "vsr/test: 16 of 1,222 official rows, written" in done.stdout


def test_real_files_with_their_photographs(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path / "raw")
    paths = [f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data", f"+paths.media.coco={real}/images/coco"]
    config = composed("prepare", "recipe=all", "check_counts=false", "max_bad_media=1.0", *paths)
    entries = {split: run(config, "vqav2", split) for split in ("train", "val")}
    assert [(entry["rows"], entry["dropped"]["picture missing or broken"]["count"]) for entry in entries.values()] == [
        (63, 237),
        (19, 20),
    ]
    assert run(config, "vsr", "test")["rows"] == 4 and run(config, "coco_caption", "train")["rows"] == 12
