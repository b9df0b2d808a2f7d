"""Mirrors of the Hugging Face hub: the same Samples as the official files give, or a refusal with its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Features, Image, List, Value

from instructblip import recipes
from instructblip.config.preparing import PrepareConfig
from instructblip.data.preparing import hub
from instructblip.data.preparing.prepare import prepare
from instructblip.data.preparing.streamed import prepare_streamed
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table
from instructblip.recipes import Recipe
from tests.conftest import World, composed, run_program

TEXT, INT = Value("string"), Value("int64")
VQA = {
    "question_type": TEXT,
    "multiple_choice_answer": TEXT,
    "answers": List({"answer": TEXT, "answer_confidence": TEXT, "answer_id": INT}),
    "image_id": INT,
    "answer_type": TEXT,
    "question_id": INT,
    "question": TEXT,
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a mirror's rows as Parquet with its schema, in its folder of a local hub."""

    def table(
        repo: str, split: str, rows: list[dict[str, Any]], features: dict[str, Any], config: str = "data"
    ) -> Path:
        path = tmp_path / "hub" / repo / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=Features(features)).to_parquet(path)
        return path

    return table


@pytest.fixture
def make(world: World, tmp_path: Path) -> Callable[..., PrepareConfig]:
    def config(*overrides: str) -> PrepareConfig:
        paths = [f"paths.raw={world.raw}", f"paths.data={tmp_path}/data", f"paths.hub={tmp_path}/hub"]
        return composed("prepare", "recipe=all", "check_counts=false", *paths, *overrides)

    return config


def vqa_rows(raw: Path, split: str, pictures: bool) -> list[dict[str, Any]]:
    """The rows of a VQAv2 mirror over the small world."""
    questions = json.loads((raw / f"vqav2/v2_OpenEnded_mscoco_{split}_questions.json").read_text())["questions"]
    annotations = json.loads((raw / f"vqav2/v2_mscoco_{split}_annotations.json").read_text())["annotations"]
    truth = {row["question_id"]: row for row in annotations}
    rows = [{**truth[row["question_id"]], "question": row["question"]} for row in questions]
    for row in rows if pictures else []:
        path = raw / f"coco/{split}/COCO_{split}_{row['image_id']:012d}.jpg"
        row["image"] = {"bytes": path.read_bytes(), "path": path.name}
    return rows


def samples(data: Path, recipe: Recipe, split: str) -> list[Any]:
    table = Table.of(data, recipe, split)
    return [table.sample(row) for row in range(len(table))]


def run(function: Any, recipe: Recipe, split: str, config: PrepareConfig) -> dict[str, Any]:
    return function(recipe, split, config, lambda items, _: items)


@pytest.mark.parametrize(("split", "pictures"), [("val", True), ("train", False)])
def test_vqav2_is_what_the_official_files_give(
    world: World, tmp_path: Path, make: Callable[..., PrepareConfig], write: Write, split: str, pictures: bool
) -> None:
    recipe = recipes.load("vqav2")
    mirror = recipe.mirrors[split]
    features = VQA | ({"image": Image()} if pictures else {})
    write(mirror.repo, mirror.split, vqa_rows(world.raw, f"{split}2014", pictures), features)
    entry = run(prepare_streamed, recipe, split, make())
    official = make(f"paths.data={tmp_path}/official")
    run(prepare, recipe, split, official)
    found = samples(tmp_path / "data", recipe, split)
    assert found == samples(tmp_path / "official", recipe, split) and entry["rows"] == len(found) > 0
    pools = [MediaPool(tmp_path / name / "media/coco") for name in ("data", "official")]
    assert len(pools[0]) == len(pools[1]), "a picture of several questions is stored once"
    for sample in found:
        assert pools[0].read(sample.media[0].key) == pools[1].read(sample.media[0].key)
    assert not run(prepare_streamed, recipe, split, make())["fresh"]


def test_vsr_reads_the_official_file_of_the_mirror(
    world: World, tmp_path: Path, make: Callable[..., PrepareConfig]
) -> None:
    recipe = recipes.load("vsr")
    (tmp_path / "hub/cambridgeltl/vsr_zeroshot").mkdir(parents=True)
    shutil.copy(world.raw / "vsr/data/splits/zeroshot/test.jsonl", tmp_path / "hub/cambridgeltl/vsr_zeroshot")
    run(prepare_streamed, recipe, "test", make())
    run(prepare, recipe, "test", make(f"paths.data={tmp_path}/official"))
    assert samples(tmp_path / "data", recipe, "test") == samples(tmp_path / "official", recipe, "test")


def test_coco_captions_join_the_raw_pictures(
    world: World, tmp_path: Path, make: Callable[..., PrepareConfig], write: Write
) -> None:
    rows = [row for row in json.loads((world.raw / "coco/dataset_coco.json").read_text())["images"]]
    rows = [row | {"sentences": [each["raw"] for each in row["sentences"]]} for row in rows if row["split"] == "val"]
    features = {"cocoid": INT, "filepath": TEXT, "filename": TEXT, "sentences": List(TEXT)}
    kept = [{name: row[name] for name in features} for row in rows]
    write("yerevann/coco-karpathy", "validation", kept, features)
    recipe = recipes.load("coco_caption")
    run(prepare_streamed, recipe, "val", make())
    run(prepare, recipe, "val", make(f"paths.data={tmp_path}/official"))
    assert samples(tmp_path / "data", recipe, "val") == samples(tmp_path / "official", recipe, "val")


def test_a_lost_column_is_named(world: World, make: Callable[..., PrepareConfig], write: Write) -> None:
    rows = [{"question_id": 1, "question": "x"}]
    write("lmms-lab/VQAv2", "validation", rows, {"question_id": INT, "question": TEXT})
    with pytest.raises(ValueError, match=r"no column image_id, answers.*has question, question_id.*source=raw"):
        list(hub.entries(recipes.load("vqav2"), "val", make().paths))


def test_broken_and_missing_pictures_are_counted_or_refused(
    world: World, tmp_path: Path, make: Callable[..., PrepareConfig], write: Write
) -> None:
    recipe, rows = recipes.load("vqav2"), vqa_rows(world.raw, "val2014", pictures=True)
    key, whole = rows[0]["image_id"], rows[0]["image"]["bytes"]
    for row in rows:
        if row["image_id"] == key:
            row["image"] = {"bytes": whole[:-200], "path": "x.jpg"}
    write("lmms-lab/VQAv2", "validation", rows, VQA | {"image": Image()})
    with pytest.raises(ValueError, match=rf"1 of \d+ pictures are missing or broken.*\n.*coco/{key}"):
        run(prepare_streamed, recipe, "val", make())
    assert not (tmp_path / "data/tables/vqav2/val.arrow").exists()
    entry = run(prepare_streamed, recipe, "val", make("max_bad_media=0.5"))
    lost = entry["dropped"]["picture missing or broken"]["count"]
    assert lost == sum(row["image_id"] == key for row in rows) and entry["rows"] == len(rows) - lost


def test_counts_and_double_ids_are_refused(world: World, make: Callable[..., PrepareConfig], write: Write) -> None:
    recipe, rows = recipes.load("vqav2"), vqa_rows(world.raw, "val2014", pictures=True)
    write("lmms-lab/VQAv2", "validation", rows, VQA | {"image": Image()})
    with pytest.raises(ValueError, match=r"rows where 214,354 are official"):
        run(prepare_streamed, recipe, "val", make("check_counts=true"))
    write("lmms-lab/VQAv2", "validation", [*rows, rows[0]], VQA | {"image": Image()})
    with pytest.raises(ValueError, match=rf"id vqav2/val/{rows[0]['question_id']} occurs twice"):
        run(prepare_streamed, recipe, "val", make())


def test_the_program_reads_a_mirror(world: World, tmp_path: Path, write: Write) -> None:
    write("lmms-lab/VQAv2", "validation", vqa_rows(world.raw, "val2014", pictures=True), VQA | {"image": Image()})
    paths = [f"paths.hub={tmp_path}/hub", f"paths.raw={tmp_path}/none", f"paths.data={tmp_path}/data"]
    arguments = ["prepare.py", "recipe=vqav2", "source=hub", "check_counts=false", "splits=[val]", *paths]
    done = run_program(*arguments)
    assert done.returncode == 0 and "official rows, written" in done.stdout, done.stderr
    refused = run_program(*arguments, "splits=[train]")
    assert refused.returncode == 2 and "no copy of pminervini/VQAv2" in refused.stderr
