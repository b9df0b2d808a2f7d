"""Keys and types of every written file: as the committed snapshot, and as the real file where there is one.

No real file is at hand for Web CapFilt (img2dataset's output), TextCaps, OCR-VQA (only rows put together from a
chat form), Karpathy's JSON files, TextVQA's training file and OCR files, A-OKVQA's training file and NoCaps' test
file: their structure is as their publishers' code and pages describe it.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.miniature.files import load

SNAPSHOTS = Path(__file__).parent / "official"
VQAV2 = [
    *(f"v2_OpenEnded_mscoco_{subset}2014_questions.json" for subset in ("train", "val")),
    *(f"v2_mscoco_{subset}2014_annotations.json" for subset in ("train", "val")),
]
REAL_FILES = {  # ours: where the real samples keep the same
    "coco/annotations/captions_train2014.json": "coco_caption/annotations/captions_val2014.json",
    **{f"vqav2/{name}": f"vqav2/{name}" for name in VQAV2},
    **{
        f"okvqa/OpenEnded_mscoco_{subset}_questions.json": f"okvqa/OpenEnded_mscoco_{subset}_questions.json"
        for subset in ("train2014", "val2014")
    },
    **{
        f"okvqa/mscoco_{subset}_annotations.json": f"okvqa/assembled/mscoco_{subset}_annotations.json"
        for subset in ("train2014", "val2014")
    },
    **{f"aokvqa/aokvqa_v1p0_{split}.json": f"aokvqa/aokvqa_v1p0_{split}.json" for split in ("val", "test")},
    "ocrvqa/dataset.json": "ocr_vqa/assembled/dataset.json",
    "nocaps/nocaps_val_4500_captions.json": "nocaps/assembled/nocaps_val_4500_captions.json",
    **{f"vizwiz/{split}.json": f"vizwiz/{split}.json" for split in ("val", "test")},
    "textvqa/TextVQA_0.5.1_test.json": "textvqa/TextVQA_0.5.1_test.json",
    "textvqa/TextVQA_0.5.1_val.json": "textvqa/assembled/TextVQA_0.5.1_val.json",
    **{
        f"vsr/data/splits/{kind}/{split}.jsonl": f"vsr/splits/{kind}/{split}.jsonl"
        for kind in ("random", "zeroshot")
        for split in ("train", "dev", "test")
    },
}
LOST = {  # in files that were put together again: what the real ones have and these do not
    "okvqa/assembled": {"question_type", "info"},
    "textvqa/assembled": {
        "image_classes",
        "flickr_original_url",
        "flickr_300k_url",
        "image_width",
        "image_height",
        "question_tokens",
    },
}
ID_KEYED = ("dataset.json",)  # files that are a table from ids to rows
NAMES = [(dataset.stem, name) for dataset in sorted(SNAPSHOTS.glob("*.json")) for name in load(dataset)]


def structure(value: Any, left_out: frozenset[str] | set[str] = frozenset()) -> Any:
    """Keys and types; a list stands for its first item."""
    if isinstance(value, dict):
        return {key: structure(value[key], left_out) for key in sorted(value) if key not in left_out}
    if isinstance(value, list):
        return [structure(item, left_out) for item in value[:1]]
    return type(value).__name__


def content(file: Path) -> Any:
    if file.suffix == ".parquet":
        return pyarrow.parquet.read_table(file).filter(pyarrow.compute.field("status") == "success").to_pylist()
    if file.suffix in (".csv", ".token"):
        return file.read_text().splitlines()
    value = load(file)
    return {"<id>": next(iter(value.values()))} if file.name in ID_KEYED else value


def test_every_written_file_is_in_a_snapshot(tree: Path) -> None:
    assert NAMES
    written = {
        file.relative_to(tree).as_posix()
        for file in tree.rglob("*")
        if file.suffix in (".json", ".jsonl", ".parquet", ".csv", ".token") and file.name != "miniature.json"
    }
    known = {name for _, name in NAMES}
    datasets = {name.split("/")[0] for name in known}
    assert {name for name in written if name.split("/")[0] in datasets} == known


@pytest.mark.parametrize(("dataset", "name"), NAMES)
def test_structure_is_the_official_one(tree: Path, dataset: str, name: str) -> None:
    assert structure(content(tree / name)) == load(SNAPSHOTS / f"{dataset}.json")[name]


@pytest.mark.parametrize("name", REAL_FILES)
def test_snapshot_is_the_structure_of_the_real_file(real_samples: Path, name: str) -> None:
    lost = next((keys for folder, keys in LOST.items() if REAL_FILES[name].startswith(folder)), frozenset[str]())
    (snapshot,) = {dataset for dataset, known in NAMES if known == name}
    ours = load(SNAPSHOTS / f"{snapshot}.json")[name]
    assert structure(content(real_samples / REAL_FILES[name]), lost) == without(ours, lost)


def without(snapshot: Any, keys: frozenset[str] | set[str]) -> Any:
    if isinstance(snapshot, dict):
        return {key: without(value, keys) for key, value in snapshot.items() if key not in keys}
    return [without(item, keys) for item in snapshot] if isinstance(snapshot, list) else snapshot
