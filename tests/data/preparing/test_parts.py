"""A split divided over machines and joined is the split prepared at once; what does not fit together is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from instructblip import recipes
from instructblip.cli import refuse_misspelt
from instructblip.config.preparing import PrepareConfig
from instructblip.data.preparing.join import join
from instructblip.data.preparing.parts import Part
from instructblip.data.preparing.prepare import prepare
from instructblip.data.readers import registry
from instructblip.data.readers.base import Context, coco
from instructblip.data.sample import Sample, votes
from instructblip.data.shards import MediaPool
from instructblip.data.tables import table_path
from instructblip.files import read_jsonl
from tests.conftest import ROOT, World, composed, run_program

RECIPE = """
name: many
task: image captioning
form: caption
source: many
pool: coco
downloads: [{url: none}]
licence: none
access: open
splits:
  train: {reader: lines, files: ["*.json"], rows: 40}
train: [train]
templates: caption
"""
Make = Callable[..., PrepareConfig]


@pytest.fixture
def make(world: World, tmp_path: Path) -> Make:
    def config(*overrides: str) -> PrepareConfig:
        paths = [f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data", "parts=3"]
        return composed("prepare", "recipe=all", "check_counts=false", "shard_size=5", *paths, *overrides)

    shutil.copytree(world.raw, tmp_path / "raw")
    return config


def run(config: PrepareConfig, recipe: str = "vqav2", split: str = "train") -> dict[str, Any]:
    return prepare(recipes.load(recipe), split, config, lambda items, _: items)


def all_parts(make: Make, recipe: str = "vqav2", of: int = 3) -> list[dict[str, Any]]:
    return [run(make(f"part={number}", f"parts={of}"), recipe) for number in range(of)]


def lines(files: Sequence[Path], context: Context) -> Iterator[Sample]:
    """A reader of many files alike: one COCO picture a line."""
    for path in files:
        for row in read_jsonl(path):
            yield context.sample(row["id"], coco(context, row["id"], row["file_name"]), answers=votes(["a picture"]))


@pytest.fixture
def many(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe whose split is a pattern of five files."""
    monkeypatch.setitem(registry.READERS, "lines", lines)
    images = json.loads((tmp_path / "raw/coco/annotations/captions_train2014.json").read_text())["images"]
    (tmp_path / "raw/many").mkdir()
    for number in range(5):
        (tmp_path / f"raw/many/{number}.json").write_text("\n".join(map(json.dumps, images[number::5])))
    (tmp_path / "many.yaml").write_text(RECIPE)
    return str(tmp_path / "many.yaml")


def test_parts_joined_are_the_table_of_an_undivided_run(make: Make, tmp_path: Path) -> None:
    parts = all_parts(make)
    assert all(0 < part["rows"] < sum(other["rows"] for other in parts) for part in parts)
    joined = join(recipes.load("vqav2"), "train", make())
    undivided = run(make(f"paths.data={tmp_path}/whole"))
    tables = [table_path(tmp_path / name, "vqav2", "train").read_bytes() for name in ("data", "whole")]
    assert tables[0] == tables[1]
    assert {**joined, "joined": None} == {**undivided, "joined": None}


def test_no_picture_is_stored_by_two_parts(make: Make, tmp_path: Path) -> None:
    all_parts(make)
    pool = MediaPool(tmp_path / "data/media/coco")
    assert len(pool) == 40 and not list((tmp_path / "data/media/coco").glob("*.arrow"))
    names = [path.name for path in (tmp_path / "data/media/coco").rglob("*.tar")]
    assert len(names) == len(set(names)), "tars of different machines can lie in one folder"
    assert not run(make("part=1"))["fresh"]


def test_an_undivided_run_takes_the_joined_table_as_it_is(make: Make) -> None:
    all_parts(make)
    assert join(recipes.load("vqav2"), "train", make())["fresh"]
    assert not join(recipes.load("vqav2"), "train", make())["fresh"] and not run(make())["fresh"]


def test_files_of_a_pattern_are_dealt_in_blocks(make: Make, many: str, tmp_path: Path) -> None:
    parts = all_parts(make, many, of=7)
    assert [list(part["sources"]) for part in parts] == [
        [],
        ["0.json"],
        ["1.json"],
        [],
        ["2.json"],
        ["3.json"],
        ["4.json"],
    ]
    joined = join(recipes.load(many), "train", make("parts=7", "check_counts=true"))
    undivided = run(make(f"paths.data={tmp_path}/whole"), many)
    assert joined["rows"] == 40 and joined["sources"] == undivided["sources"]
    tables = [table_path(tmp_path / name, "many", "train").read_bytes() for name in ("data", "whole")]
    assert tables[0] == tables[1]


def test_missing_parts_are_named(make: Make) -> None:
    run(make("part=1"))
    with pytest.raises(ValueError, match=r"parts 0,2 of 3 are missing; python prepare.py -m recipe=vqav2 'part=0,2'"):
        join(recipes.load("vqav2"), "train", make())


def test_parts_of_another_division_are_refused(make: Make) -> None:
    all_parts(make)
    run(make("part=0", "parts=2"))
    with pytest.raises(ValueError, match=r"part-000-of-002 is a part of 2, parts=3 are asked for"):
        join(recipes.load("vqav2"), "train", make())


def test_a_part_that_is_there_twice_is_refused(make: Make, tmp_path: Path) -> None:
    all_parts(make)
    folder = tmp_path / "data/tables/vqav2"
    shutil.rmtree(folder / "part-002-of-003")
    shutil.copytree(folder / "part-001-of-003", folder / "part-002-of-003")
    with pytest.raises(ValueError, match=r"part-002-of-003 holds part 1 as part-001-of-003: a part is there twice"):
        join(recipes.load("vqav2"), "train", make())


def test_a_part_of_another_recipe_version_is_refused(make: Make, tmp_path: Path) -> None:
    all_parts(make)
    path = tmp_path / "data/tables/vqav2/part-001-of-003/manifest.json"
    path.write_text(path.read_text().replace(recipes.load("vqav2").data_version(), "0123456789ab"))
    with pytest.raises(ValueError, match=r"part-001-of-003 was written by version 0123456789ab"):
        join(recipes.load("vqav2"), "train", make())


def test_parts_of_different_files_are_refused(make: Make, tmp_path: Path) -> None:
    run(make("part=0"))
    path = tmp_path / "raw/vqav2/v2_OpenEnded_mscoco_train2014_questions.json"
    path.write_text(path.read_text() + " ")
    run(make("part=1")), run(make("part=2"))
    with pytest.raises(
        ValueError, match=r"part-001-of-003 was read from another v2_OpenEnded_mscoco_train2014_questions"
    ):
        join(recipes.load("vqav2"), "train", make())


def test_a_damaged_part_is_refused(make: Make, tmp_path: Path) -> None:
    all_parts(make)
    path = tmp_path / "data/tables/vqav2/part-001-of-003/train.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train\.arrow is not the table its manifest tells of"):
        join(recipes.load("vqav2"), "train", make())


def test_an_id_in_two_parts_is_refused(make: Make, many: str, tmp_path: Path) -> None:
    (tmp_path / "raw/many/9.json").write_text((tmp_path / "raw/many/0.json").read_text())
    all_parts(make, many, of=2)
    with pytest.raises(ValueError, match=r"id many/train/\d+ is both in .*part-000-of-002 and in .*part-001-of-002"):
        join(recipes.load(many), "train", make("parts=2"))


def test_counts_and_lost_pictures_are_judged_over_all_parts(make: Make, tmp_path: Path) -> None:
    victim = sorted((tmp_path / "raw/coco/train2014").iterdir())[7]
    victim.unlink()
    for number in range(3):
        run(make(f"part={number}", "max_bad_media=0.2"))
    with pytest.raises(ValueError, match=r"rows where 443,757 are official"):
        join(recipes.load("vqav2"), "train", make("check_counts=true"))
    with pytest.raises(ValueError, match="1 of 40 pictures are missing or broken"):
        join(recipes.load("vqav2"), "train", make())
    entry = join(recipes.load("vqav2"), "train", make("max_bad_media=0.025"))
    assert entry["dropped"]["picture missing or broken"]["count"] == 3


def test_a_part_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="part=3: parts of 3 are numbered 0 to 2"):
        Part(3, 3)


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_sweep_prepares_parts_and_one_command_joins_them(make: Make, tmp_path: Path, launcher: str) -> None:
    if launcher != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    paths = [
        f"paths.raw={tmp_path}/raw",
        f"paths.data={tmp_path}/data",
        f"paths.runs={tmp_path}/runs",
        "check_counts=false",
    ]
    arguments = ["recipe=vsr", "splits=[test]", "parts=3", *paths]
    swept = run_program("prepare.py", "-m", *arguments, "part=range(0,3)", f"hydra/launcher={launcher}")
    assert swept.returncode == 0, swept.stderr
    joined = run_program("prepare.py", *arguments, "join=true")
    assert joined.returncode == 0 and "vsr/test: 16 of 1,222 official rows, written" in joined.stdout, joined.stderr
    again = run_program("prepare.py", *arguments, "join=true")
    assert "unchanged" in again.stdout


def test_the_slurm_launcher_is_a_config_of_settings_it_knows() -> None:
    plugin = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    settings = OmegaConf.load(ROOT / "conf/hydra/launcher/slurm.yaml")
    assert set(settings) <= set(OmegaConf.structured(plugin.SlurmQueueConf))
    assert settings["_target_"] == plugin.SlurmQueueConf._target_
    refuse_misspelt("prepare", ["-m", "recipe=vsr", "part=range(0,64)", "hydra/launcher=slurm"])
