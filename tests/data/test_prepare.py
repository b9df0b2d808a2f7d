"""Preparing: goes on after an interruption, does nothing twice, and names file and remedy for every bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.config import PrepareConfig
from instructblip.data import shards
from instructblip.data.prepare import prepare, summary
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table, table_path
from instructblip.files import lock
from tests.conftest import World, composed, run_program
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
    def interrupted(items: Iterable[Any], text: str) -> Iterable[Any]:
        for number, item in enumerate(items):
            if text.endswith("pictures") and number == after:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        run(make(), progress=interrupted)
    assert not list((tmp_path / "data/tables").rglob("*.arrow")), "no table before its pictures"
    assert len(list((tmp_path / "data/media/coco").glob("*.arrow"))) == after // 10, "whole shards stay"
    assert not list((tmp_path / "data").rglob("*.tmp"))
    run(make())
    again = make(f"paths.data={tmp_path}/undisturbed")
    run(again)
    finished, undisturbed = tree(tmp_path / "data"), tree(tmp_path / "undisturbed")
    assert finished["tables/vqav2/train.arrow"] == undisturbed["tables/vqav2/train.arrow"]
    pools = [MediaPool(tmp_path / name / "media/coco") for name in ("data", "undisturbed")]
    keys = shards.pool_keys(tmp_path / "undisturbed/media/coco")
    assert shards.pool_keys(tmp_path / "data/media/coco") == keys and len(pools[0]) == len(pools[1]) == 40
    assert all(pools[0].read(key) == pools[1].read(key) for key in keys)


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
    assert lost["count"] == 3 and entry["rows"] + 3 == len(read_questions(tmp_path))
    victim.write_bytes(whole)
    entry = run(make())
    assert entry["fresh"] and not entry["dropped"], "what was missing is asked for again"


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


def test_linked_media_are_not_copied(make: Make, tmp_path: Path) -> None:
    run(make("media=link"))
    folder = tmp_path / "data/media/coco"
    assert not list(folder.glob("*.tar")) and len(MediaPool(folder)) == 40


def test_the_program_says_what_it_did_and_what_is_wrong(make: Make, tmp_path: Path) -> None:
    arguments = ["prepare.py", "recipe=[vsr]", f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data"]
    refused = run_program(*arguments)
    assert refused.returncode == 2 and "3,489 are official" in refused.stderr and "Traceback" not in refused.stderr
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
