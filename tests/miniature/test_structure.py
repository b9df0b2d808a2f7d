"""Keys and types of every written file: as the committed snapshot, and as the real file where there is one.

No real file is at hand for

- Web CapFilt (img2dataset's output), iVQA's tables, Hateful Memes (whose licence forbids copies),
- TextCaps, LLaVA's three files and OCR-VQA in their official form (LLaVA's and OCR-VQA's are put together from others),
- Karpathy's JSON files, NoCaps' test file, A-OKVQA's training file and vocabularies, TextVQA's training and OCR files,
- IconQA's `problems.json` and `pid_splits.json`, the training and validation files of MSRVTT-QA.

Their structure is as their publishers' code and pages describe it.
"""

import csv
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from instructblip.data.sample import SCENES
from instructblip.miniature.sources import STAMP
from tests.miniature.files import load

SNAPSHOTS = Path(__file__).parent / "official"
SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".token", ".txt")
TRAIN_AND_VAL = ("train2014", "val2014")
REAL_FILES = {  # ours: where the real samples keep the same
    "coco/annotations/captions_train2014.json": "coco_caption/annotations/captions_val2014.json",
    **{f"vqav2/v2_{name}.json": f"vqav2/v2_{name}.json" for year in TRAIN_AND_VAL for name in (f"OpenEnded_mscoco_{year}_questions", f"mscoco_{year}_annotations")},
    **{f"okvqa/{name}.json": f"okvqa/{name}.json" for name in map("OpenEnded_mscoco_{}_questions".format, TRAIN_AND_VAL)},
    **{f"okvqa/{name}.json": f"okvqa/assembled/{name}.json" for name in map("mscoco_{}_annotations".format, TRAIN_AND_VAL)},
    **{f"aokvqa/{name}": f"aokvqa/{name}" for name in ("aokvqa_v1p0_val.json", "aokvqa_v1p0_test.json")},
    "ocrvqa/dataset.json": "ocr_vqa/assembled/dataset.json",
    "nocaps/nocaps_val_4500_captions.json": "nocaps/assembled/nocaps_val_4500_captions.json",
    **{f"vizwiz/{split}.json": f"vizwiz/{split}.json" for split in ("val", "test")},
    "textvqa/TextVQA_0.5.1_test.json": "textvqa/TextVQA_0.5.1_test.json",
    "textvqa/TextVQA_0.5.1_val.json": "textvqa/assembled/TextVQA_0.5.1_val.json",
    **{f"vsr/data/splits/{kind}/{split}.jsonl": f"vsr/splits/{kind}/{split}.jsonl" for kind in ("random", "zeroshot") for split in ("train", "dev", "test")},
    **{f"gqa/questions1.2/{split}_balanced_questions.json": f"gqa/{split}_balanced_questions.json" for split in ("train", "testdev")},
    **{f"iconqa/iconqa_data/iconqa/*/{kind}/*/data.json": f"iconqa/{kind}/*/data.json" for kind in ("choose_txt", "choose_img", "fill_in_blank")},
    **{f"scienceqa/{name}.json": f"scienceqa/{name}.json" for name in ("problems", "pid_splits")},
    **{f"visdial/{name}.json": f"visual_dialog/{name}.json" for name in ("visdial_1.0_val", "visdial_1.0_val_dense_annotations")},
    **{f"llava/{name}.json": f"llava_instruct_150k/{name}.json" for name in ("conversation_58k", "detail_23k", "complex_reasoning_77k")},
    **{f"msvd_qa/{split}_qa.json": f"msvd_qa/{split}_qa.json" for split in ("train", "val", "test")},
    "msrvtt_qa/test_qa.json": "msrvtt_qa/test_qa.json",
    **{f"{name}/qa_ans2label.json": f"{name}/lavis_format/qa_ans2label.json" for name in ("msvd_qa", "msrvtt_qa")},
}  # fmt: skip
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
WITH_HEADER = ("train.csv", "val.csv", "test.csv")  # of iVQA
NAMES = [(dataset.stem, name) for dataset in sorted(SNAPSHOTS.glob("*.json")) for name in load(dataset)]


def structure(value: Any, left_out: frozenset[str] | set[str] = frozenset()) -> Any:
    """Keys and types. A list stands for its first item, a table from ids to rows for its first row with a picture."""
    if isinstance(value, dict):
        if value and all(re.fullmatch(r"\d+|[0-9A-Z]{10}", key) for key in value):
            rows = [row for row in value.values() if not isinstance(row, dict) or row.get("image", True)]
            return {"<id>": structure(rows[0], left_out)}
        if value and all(type(item) is int for item in value.values()):
            return {"<word>": "int"}
        return {key: structure(value[key], left_out) for key in sorted(value) if key not in left_out}
    if isinstance(value, list):
        return [structure(item, left_out) for item in value[:1]]
    return type(value).__name__


def agree(one: Any, other: Any) -> bool:
    """The same structure; lists and tables may be empty in the one or the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        empty = not one or not other
        return empty or (one.keys() == other.keys() and all(agree(one[key], other[key]) for key in one))
    if isinstance(one, list) and isinstance(other, list):
        return all(agree(*pair) for pair in zip(one, other, strict=False))
    return one == other


def content(root: Path, name: str) -> Any:
    """Of the first file with this name."""
    file = sorted(root.glob(name))[0]
    if file.suffix == ".parquet":
        return pyarrow.parquet.read_table(file).filter(pyarrow.compute.field("status") == "success").to_pylist()
    if file.suffix in (".token", ".txt"):
        return file.read_text().splitlines()
    if file.name in WITH_HEADER:
        return list(csv.DictReader(file.read_text().splitlines()))
    return file.read_text().splitlines() if file.suffix == ".csv" else load(file)


def test_every_written_file_is_in_a_snapshot(tree: Path) -> None:
    assert NAMES
    written = {file for file in tree.rglob("*") if file.suffix in SUFFIXES and file.name not in (STAMP, SCENES)}
    assert written == {file for _, name in NAMES for file in tree.glob(name)}


@pytest.mark.parametrize(("dataset", "name"), NAMES)
def test_structure_is_the_official_one(tree: Path, dataset: str, name: str) -> None:
    assert agree(structure(content(tree, name)), load(SNAPSHOTS / f"{dataset}.json")[name])


@pytest.mark.parametrize("name", REAL_FILES)
def test_snapshot_is_the_structure_of_the_real_file(real_samples: Path, name: str) -> None:
    lost = next((keys for folder, keys in LOST.items() if REAL_FILES[name].startswith(folder)), frozenset[str]())
    (snapshot,) = {dataset for dataset, known in NAMES if known == name}
    ours = load(SNAPSHOTS / f"{snapshot}.json")[name]
    assert agree(structure(content(real_samples, REAL_FILES[name]), lost), without(ours, lost))


def without(snapshot: Any, keys: frozenset[str] | set[str]) -> Any:
    if isinstance(snapshot, dict):
        return {key: without(value, keys) for key, value in snapshot.items() if key not in keys}
    return [without(item, keys) for item in snapshot] if isinstance(snapshot, list) else snapshot
