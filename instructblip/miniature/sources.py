"""Writes the embedded world as raw files, in the official on-disk formats and layouts of the datasets.

Everything is a function of (seed, sizes): the same pair gives the same bytes.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instructblip.miniature.albums import ALBUMS, Picture, Sizes, pictures
from instructblip.miniature.formats import coco_captions, karpathy, vqav2, vsr
from instructblip.miniature.scenes import render

WORLD = 1  # raised whenever a seed gives another tree than before
STAMP = "miniature.json"
DEFAULT = Sizes()


def write(folder: Path, seed: int, sizes: Sizes = DEFAULT) -> None:
    """Writes the raw tree into `folder`, whole or not at all; does nothing where it already stands.

    Raises ValueError when `folder` holds anything else.
    """
    stamp = {"world": WORLD, "seed": seed, "sizes": asdict(sizes)}
    if folder.exists() and any(folder.iterdir()):
        _require_same(folder, stamp)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        tree = Path(temporary) / folder.name
        _write_tree(tree, seed, sizes)
        _write_json(tree / STAMP, stamp)
        os.replace(tree, folder)


def _require_same(folder: Path, stamp: dict[str, Any]) -> None:
    file = folder / STAMP
    found = json.loads(file.read_text()) if file.is_file() else "files that are not a miniature"
    if found != stamp:
        raise ValueError(f"{folder} holds {found}, not {stamp}: name another folder (paths.raw) or remove it")


def _write_tree(tree: Path, seed: int, sizes: Sizes) -> None:
    albums = {name: pictures(name, seed, sizes) for name in ALBUMS}
    for album in albums.values():
        _write_pictures(tree / "coco", album, seed)

    _write_json(tree / "coco/annotations/captions_train2014.json", coco_captions(albums["coco_train"]))
    splits = {split: albums[f"coco_{split}"] for split in ("train", "val", "test")}
    _write_json(tree / "coco/dataset_coco.json", karpathy(splits))

    asked = {
        "train2014": ("coco_train", sizes.train_questions),
        "val2014": ("coco_test", sizes.test_questions),
    }
    for subset, (album_name, per_picture) in asked.items():
        rng = random.Random(f"{seed}/vqav2/{subset}")
        questions, annotations = vqav2(subset, albums[album_name], per_picture, rng)
        _write_json(tree / f"vqav2/v2_OpenEnded_mscoco_{subset}_questions.json", questions)
        _write_json(tree / f"vqav2/v2_mscoco_{subset}_annotations.json", annotations)

    for split in ("train", "dev", "test"):
        rng = random.Random(f"{seed}/vsr/{split}")
        rows = vsr(albums[f"vsr_{split}"], getattr(sizes, f"vsr_{split}"), rng)
        _write_lines(tree / f"vsr/data/splits/zeroshot/{split}.jsonl", rows)


def _write_pictures(folder: Path, album: Iterable[Picture], seed: int) -> None:
    for picture in album:
        file = folder / picture.folder / picture.file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = render(picture.scene, random.Random(f"{seed}/look/{picture.id}"))
        # at 48 pixels subsampled chroma would bleed into the neighbouring cell
        image.save(file, quality=95, subsampling=0)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    _write_lines(file, [value])


def _write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
