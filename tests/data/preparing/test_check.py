"""check=true: what is missing, where it comes from, and what is unknown is said to be unknown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.data.preparing import check
from instructblip.pools import Access, Download, Pool
from tests.conftest import World, composed, run_program


def checked(raw: Path, name: str = "vqav2", *overrides: str) -> check.Checked:
    return check.check(recipes.load(name), composed("prepare", f"recipe={name}", f"paths.raw={raw}", *overrides))


def test_files_are_found_or_named_with_their_download(world: World, tmp_path: Path) -> None:
    everything = checked(world.raw)
    assert not everything.wanted() and all(file.found == 1 and file.bytes > 0 for file in everything.files)
    shutil.copytree(world.raw / "vqav2", tmp_path / "vqav2")
    (tmp_path / "vqav2/v2_mscoco_val2014_annotations.json").unlink()
    lacking = checked(tmp_path)
    assert [file.name for file in lacking.files if file.missing] == ["v2_mscoco_val2014_annotations.json"]
    urls = [download.url.rsplit("/", 1)[1] for download in lacking.wanted()]
    assert urls == ["v2_Annotations_Val_mscoco.zip", "train2014.zip", "val2014.zip"], "and the pool, which is not there"


def test_all_that_several_datasets_lack_is_named_before_any_is_prepared(world: World, tmp_path: Path) -> None:
    for name in ("vqav2", "coco", "vsr"):
        shutil.copytree(world.raw / name, tmp_path / "raw" / name)
    (tmp_path / "raw/vqav2/v2_mscoco_val2014_annotations.json").unlink()
    paths = [f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data", "check_counts=false"]
    refused = run_program("prepare.py", "recipe=[vsr,vqav2,gqa]", *paths)
    assert refused.returncode == 2 and "2 of 3 datasets lack files, and none was prepared" in refused.stderr
    assert (
        "v2_mscoco_val2014_annotations.json" in refused.stderr and "testdev_balanced_questions.json" in refused.stderr
    )
    assert "train_balanced" not in refused.stderr, "of a held-out set only what is evaluated"
    assert not (tmp_path / "data/tables").exists()
    config = composed("prepare", "recipe=vqav2", *paths, "source=hub")
    check.look([recipes.load("vqav2"), recipes.load("gqa")], config)  # the hub has what is not here


def test_only_the_splits_asked_for(world: World, tmp_path: Path) -> None:
    found = checked(tmp_path, "coco_caption", "splits=[test]")
    assert [file.name for file in found.files] == ["dataset_coco.json"]
    assert [download.url.rsplit("/", 1)[1] for download in found.downloads] == ["caption_datasets.zip"]


def test_annotations_beside_the_pictures_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/dataset_coco.json").write_text("{}")
    assert checked(tmp_path, "coco_caption").pool.files == 0
    (tmp_path / "coco/1.jpg").write_bytes(b"")
    assert checked(tmp_path, "coco_caption").pool.files == 1


def test_counting_stops() -> None:
    assert check.count_files(Path(__file__).parent, 3) == 3


@pytest.mark.parametrize(
    ("megabytes", "said"),
    [
        ([], "0 MB"),
        ([2.0, 3.0], "5 MB"),
        ([2.0, None], "2 MB + 1 of unknown size"),
        ([None, None], "2 of unknown size"),
    ],
)
def test_unknown_sizes_are_not_zero(megabytes: list[float | None], said: str) -> None:
    downloads = [Download(f"http://{number}", size) for number, size in enumerate(megabytes)]
    assert check.size(downloads) == said


def test_time_at_the_stated_rate() -> None:
    config = composed("prepare", "recipe=all", "download_rate=10")
    assert check.duration([Download("a", 6000.0)], config) == "10 min at 10 MB/s"
    assert check.duration([Download("a", 720_000.0), Download("b")], config) == (
        "20 h at 10 MB/s, not counting the 1 of unknown size"
    )


def test_quick_is_what_needs_no_person(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"coco_caption", "vqav2", "vsr"} <= set(recipes.quick())
    monkeypatch.setattr("instructblip.pools.load", lambda name: Pool(access=Access.form))
    assert not {"coco_caption", "vqav2", "vsr"} & set(recipes.quick())


def test_the_program_checks_and_writes_nothing(tmp_path: Path) -> None:
    paths = [f"paths.raw={tmp_path}/raw", f"paths.data={tmp_path}/data"]
    arguments = ["prepare.py", "recipe=[vqav2,vsr]", "check=true", f"check_json={tmp_path}/check.json", *paths]
    done = run_program(*arguments)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    for said in ("missing", "no such folder", "v2_Questions_Train_mscoco.zip", "20,155 MB + 5 of unknown size", "free"):
        assert said in done.stdout, said
    assert [path.name for path in tmp_path.iterdir()] == ["check.json"]
    facts = json.loads((tmp_path / "check.json").read_text())
    assert facts["wanted_megabytes"] == 20155 and len(facts["wanted_of_unknown_size"]) == 5
