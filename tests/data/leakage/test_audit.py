"""The audit finds what was planted (same key, same bytes, recompressed, resized, in another pool) and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from instructblip import recipes
from instructblip.config.training import TrainConfig
from instructblip.data.leakage.audit import CAVEAT, audit, clean_rows, strict_rows
from instructblip.data.leakage.fingerprints import Fingerprints, equal, near
from instructblip.data.leakage.overlaps import Catalogue, plain_text
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.data.shards import append
from instructblip.data.tables import table_path, write_table
from instructblip.files import sha256, write_json
from instructblip.recipes import Recipe
from instructblip.training.datamodule import training_set


def photo(seed: int) -> Image.Image:
    """A picture with structure at several scales, as photographs have, and unlike that of another seed."""
    noise = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(noise.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((160, 120), 3), dtype=float
        )
        for n in (3, 6, 12)
    ]
    return Image.fromarray(np.clip(sum(layers) / 3, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, **{"format": "JPEG", "quality": 92} | options)
    return file.getvalue()


def put(data: Path, recipe: str, split: str, rows: list[tuple[str, str, bytes, str]]) -> None:
    """A prepared split from (pool, key, file content, question)."""
    samples = [
        Sample(
            f"{recipe}/{split}/{number}", recipe, split, Form.vqa, (MediaRef(pool, key),),
            slots={"question": question}, answers=(Answer("yes"),),
        )
        for number, (pool, key, _, question) in enumerate(rows)
    ]  # fmt: skip
    path = table_path(data, recipe, split)
    write_table(path, samples)
    pools: dict[str, dict[str, bytes]] = {}
    for pool, key, content, _ in rows:
        pools.setdefault(pool, {})[key] = content
    for pool, pictures in pools.items():
        (data / "media" / pool).mkdir(parents=True, exist_ok=True)
        append(data / "media" / pool, sorted(pictures.items()), 4)
    write_json(path.with_name("manifest.json"), {"splits": {split: {"table": {"sha256": sha256(path)}}}})


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Twelve training pictures; of six evaluated ones one is the same key and four are copies in another pool."""
    train = [("coco", f"t{n}", encoded(photo(n)), f"What is picture {n}?") for n in range(12)]
    half = photo(3).resize((80, 60), Image.Resampling.LANCZOS)
    evaluated = [
        ("coco", "t0", train[0][2], "Is it day?"),
        ("gqa", "copy", train[1][2], "what is  PICTURE 1"),
        ("gqa", "recompressed", encoded(photo(2), quality=25), "What is picture 5?"),
        ("gqa", "resized", encoded(half), "Is it small?"),
        ("gqa", "png", encoded(photo(4), format="PNG", quality=None), "Is it exact?"),
        ("gqa", "fresh", encoded(photo(99)), "Is it new?"),
    ]
    put(tmp_path, "vqav2", "train", train)
    put(tmp_path, "gqa", "testdev", [row for row in evaluated if row[1] != "t0"])
    put(tmp_path, "vsr", "test", [evaluated[0], ("coco", "t90", encoded(photo(90)), "Is it far?")])
    return tmp_path


def recipe_like(name: str, **fields: Any) -> Recipe:
    return replace(recipes.load("vsr"), name=name, **fields)


def audited(data: Path, **options: Any) -> list[dict[str, Any]]:
    vsr = recipes.load("vsr")
    assert vsr.evaluation
    gqa = recipe_like("gqa", evaluation=replace(vsr.evaluation, split="testdev", variants={}))
    only = recipe_like("vsr", evaluation=replace(vsr.evaluation, variants={}))
    path = audit(
        [recipes.load("vqav2")],
        [gqa, only],
        data,
        progress=lambda items, _: items,
        **{"distance": 6, "workers": 1} | options,
    )
    assert path.read_text().startswith(CAVEAT)
    return json.loads((data / "audit/overlaps.json").read_text())["overlaps"]


def test_planted_duplicates_are_found_and_nothing_else(planted: Path) -> None:
    gqa, vsr = audited(planted)
    assert gqa["pictures"] == {"key": 0, "file": 1, "look": 3} and gqa["rows_on_shared"] == 4 and gqa["rows"] == 5
    assert vsr["pictures"] == {"key": 1, "file": 0, "look": 0} and vsr["rows_on_shared"] == 1
    assert gqa["training_rows"] == 4 and vsr["training_rows"] == 1
    assert gqa["texts"] == 2, "one question with its picture, one that is asked of another"
    assert gqa["texts_with_picture"] == 1 and vsr["texts"] == 0


def test_strict_drops_rows_whose_picture_is_evaluated(planted: Path) -> None:
    audited(planted)
    assert strict_rows(planted, "vqav2", "train").tolist() == [5, 6, 7, 8, 9, 10, 11]
    report = (planted / "audit/report.md").read_text()
    assert "| vqav2/train | 12 | 12 | 7 |" in report
    assert "| vqav2/train | gqa/testdev | 5 | 0 | 1 | 3 | 4 (80.0%) | 2 | 1 |" in report


def test_clean_rows_show_nothing_that_was_seen(planted: Path) -> None:
    audited(planted)
    seen = [("vqav2/train", sha256(table_path(planted, "vqav2", "train")))]
    assert clean_rows(planted, seen, "gqa/testdev", 5).tolist() == [4]  # the fresh one
    assert clean_rows(planted, seen, "vsr/test", 1).tolist() == []
    assert clean_rows(planted, [], "gqa/testdev", 5).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no audit of vqav2/train as it was trained on"):
        clean_rows(planted, [("vqav2/train", "another table")], "gqa/testdev", 5)
    with pytest.raises(ValueError, match="no audit of coco_caption/train"):
        clean_rows(planted, [("coco_caption/train", "t")], "gqa/testdev", 5)


def test_a_second_audit_reads_no_picture(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = audited(planted)
    files = {path: path.stat().st_mtime_ns for path in (planted / "media").rglob("*")}
    assert audited(planted) == before
    assert files == {path: path.stat().st_mtime_ns for path in (planted / "media").rglob("*")}
    next((planted / "media/gqa").glob("*.npy")).write_bytes(b"cut")
    assert audited(planted) == before, "a cut file of fingerprints is made again"


def test_a_changed_table_asks_for_another_audit(planted: Path) -> None:
    audited(planted)
    manifest = planted / "tables/vqav2/manifest.json"
    manifest.write_text(manifest.read_text().replace('sha256": "', 'sha256": "0'))
    with pytest.raises(ValueError, match=r"leakage=strict needs an audit of vqav2/train.*audit=true"):
        strict_rows(planted, "vqav2", "train")


def test_what_is_not_prepared_is_said(planted: Path, tmp_path: Path) -> None:
    vsr = recipes.load("vsr")
    audit([recipes.load("vqav2"), recipes.load("coco_caption")], [vsr], planted, 6, 1, lambda items, _: items)
    assert "Not prepared, so not compared: coco_caption/train" in (planted / "audit/report.md").read_text()
    with pytest.raises(ValueError, match="no training split is prepared"):
        audit([recipes.load("coco_caption")], [vsr], planted, 6, 1, lambda items, _: items)


def test_without_the_library_the_extra_is_named(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(ValueError, match=r"pip install 'instructblip\[audit\]'"):
        audited(planted)


def test_joins_agree_with_comparing_every_pair() -> None:
    rng = np.random.default_rng(0)
    some, others = (rng.integers(0, 9, n, dtype=np.uint64) for n in (40, 30))
    every = {(i, j) for i, a in enumerate(some) for j, b in enumerate(others) if a == b}
    assert {tuple(pair) for pair in equal(some, others).tolist()} == every and every
    far = {(i, j) for i, a in enumerate(some) for j, b in enumerate(others) if (int(a) ^ int(b)).bit_count() <= 1}
    assert {tuple(pair) for pair in near(some, others, 1, block=64).tolist()} == far and far > every


@pytest.mark.parametrize(("one", "other", "same"), [("A red bus.", "a RED  bus", True), ("a bus", "the bus", False)])
def test_texts_are_compared_without_case_and_punctuation(one: str, other: str, same: bool) -> None:
    assert (plain_text(one) == plain_text(other)) is same


def test_training_with_strict_leaves_the_rows_out(
    tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("leakage=strict", "mixture.recipes=[vqav2]")
    with pytest.raises(ValueError, match="needs an audit of vqav2/train"):
        training_set(config)
    full = training_set(tiny("mixture.recipes=[vqav2]"))
    kept = np.array(sorted(random.Random(0).sample(range(len(full.tables[0])), 7)))
    monkeypatch.setattr("instructblip.training.datamodule.strict_rows", lambda *_: kept)
    strict = training_set(config)
    uids = {strict.tables[0].sample(pick.row).uid for number in range(20) for pick in strict.stream.step(number)}
    assert uids == {full.tables[0].sample(int(row)).uid for row in kept}
    assert strict.manifests != full.manifests, "another lineage"


def test_real_photographs_are_told_apart(real: Path, tmp_path: Path) -> None:
    """Every photograph finds its own small, recompressed copy and no other photograph."""
    files = sorted((real / "images/coco").glob("*.jpg"))[:60]
    originals = [("coco", path.stem, path.read_bytes(), f"What is {path.stem}?") for path in files]
    copies = []
    for _, key, content, _ in originals:
        image = Image.open(BytesIO(content)).convert("RGB")
        small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
        copies.append(("gqa", key, encoded(small, quality=40), f"Where is {key}?"))
    put(tmp_path, "vqav2", "train", originals)
    put(tmp_path, "gqa", "testdev", copies)
    (gqa,) = [each for each in audited_pair(tmp_path)]
    assert gqa["pictures"] == {"key": 0, "file": 0, "look": 60} and gqa["training_rows"] == 60
    places = Catalogue({name: Fingerprints.read(tmp_path / "media" / name) for name in ("coco", "gqa")})
    looks = places.looks()
    assert len(near(looks[:60], looks[60:], 6)) == 60, "its own copy and no other"


def audited_pair(data: Path) -> list[dict[str, Any]]:
    vsr = recipes.load("vsr")
    assert vsr.evaluation
    gqa = recipe_like("gqa", evaluation=replace(vsr.evaluation, split="testdev", variants={}))
    audit([recipes.load("vqav2")], [gqa], data, 6, 2, lambda items, _: items)
    return json.loads((data / "audit/overlaps.json").read_text())["overlaps"]
