"""Keys and types of one record of each file: as the committed snapshot, and as the real file where there is one.

No real file is at hand for iVQA's tables (nor any of its clips), for Hateful Memes (whose licence forbids copies) and
for IconQA's `problems.json` and `pid_splits.json`; LLaVA's three files are put together from the later mix of the
same records. Their structure is as the publishers' pages and loading code describe it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

SNAPSHOT = Path(__file__).parents[1] / "official_structure_heldout.json"
REAL_FILES = {  # ours: where the real samples keep the same
    **{
        f"gqa/questions1.2/{name}": f"gqa/{name}"
        for name in ("testdev_balanced_questions.json", "train_balanced_questions.json")
    },
    **{
        f"vsr/data/splits/{kind}/{split}.jsonl": f"vsr/splits/{kind}/{split}.jsonl"
        for kind in ("zeroshot", "random")
        for split in ("train", "dev", "test")
    },
    **{
        f"iconqa/iconqa_data/iconqa/test/{kind}/*/data.json": f"iconqa/{kind}/*/data.json"
        for kind in ("choose_txt", "choose_img", "fill_in_blank")
    },
    "scienceqa/problems.json": "scienceqa/problems.json",
    "scienceqa/pid_splits.json": "scienceqa/pid_splits.json",
    "visdial/visdial_1.0_val.json": "visual_dialog/visdial_1.0_val.json",
    "visdial/visdial_1.0_val_dense_annotations.json": "visual_dialog/visdial_1.0_val_dense_annotations.json",
    **{
        f"llava/{name}.json": f"llava_instruct_150k/{name}.json"
        for name in ("conversation_58k", "detail_23k", "complex_reasoning_77k")
    },
    **{f"msvd_qa/{split}_qa.json": f"msvd_qa/{split}_qa.json" for split in ("train", "val", "test")},
    "msvd_qa/qa_ans2label.json": "msvd_qa/lavis_format/qa_ans2label.json",
    "msrvtt_qa/test_qa.json": "msrvtt_qa/test_qa.json",
    "msrvtt_qa/qa_ans2label.json": "msrvtt_qa/lavis_format/qa_ans2label.json",
}
NAMES = [*json.loads(SNAPSHOT.read_text())]


def structure(value: Any) -> Any:
    """Keys and types. A list stands for its first item, a table whose keys are ids or words for its first value.

    Lists of plain values may be empty in the one or the other record; so may tables of places in a text.
    """
    if isinstance(value, dict):
        if all(key.isdigit() for key in value):
            rows = [row for row in value.values() if isinstance(row, dict) and row.get("image", True)]
            return {"<id>": structure(rows[0])} if rows else "table"
        if all(type(item) is int for item in value.values()):
            return {"<word>": "int"}
        return {key: structure(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [structure(value[0])] if value and isinstance(value[0], dict) else "list"
    return type(value).__name__


def content(root: Path, name: str) -> Any:
    file = sorted(root.glob(name))[0]
    first = file.read_text().splitlines()[0]
    if file.suffix == ".csv":
        return dict.fromkeys(first.split(","), "")
    if file.suffix == ".txt":
        return first
    return json.loads(first) if file.suffix == ".jsonl" else json.loads(file.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_structure_is_the_official_one(written: Path, name: str) -> None:
    assert structure(content(written, name)) == json.loads(SNAPSHOT.read_text())[name]


@pytest.mark.parametrize("name", REAL_FILES)
def test_snapshot_is_the_structure_of_the_real_file(real_samples: Path, name: str) -> None:
    ours = json.loads(SNAPSHOT.read_text())[name]
    assert ours == structure(content(real_samples, REAL_FILES[name]))


def test_every_written_file_has_its_structure_in_the_snapshot(written: Path) -> None:
    known = {file for name in NAMES for file in written.glob(name.replace("/test/", "/*/"))}
    files = {file for pattern in ("*.json", "*.jsonl", "*.csv", "*.txt") for file in written.rglob(pattern)}
    assert files == known
