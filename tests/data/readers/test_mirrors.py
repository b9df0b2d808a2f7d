"""Each mirror's rows, written as Parquet with its schema, give the Samples of the official files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Features, Image, List, Value

from instructblip.config.data import PathsConfig
from instructblip.data.preparing import hub
from instructblip.data.readers.base import Drop
from instructblip.data.readers.mirrors import Entry
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.recipes import Mirror, Recipe, Split

TEXT, INT, TEXTS = Value("string"), Value("int32"), List(Value("string"))
BYTES = b"\xff\xd8 a picture's file, as it is"
IMAGE = {"bytes": BYTES, "path": "x.jpg"}


def recipe(mirror: Mirror, split: str = "val") -> Recipe:
    return Recipe(
        name="x", form=Form.vqa, source="x", pool="pool", splits={split: Split(files=["x"], rows=1, reader="vqa")},
        mirrors={split: mirror}, downloads=[],
    )  # fmt: skip


def entries(
    folder: Path, rows: list[dict[str, Any]], features: dict[str, Any], split: str = "val", **facts: Any
) -> list[Entry]:
    mirror = Mirror(repo="owner/name", split="validation", **facts)
    write(folder / "owner/name/data", "validation", rows, features)
    return list(hub.entries(recipe(mirror, split), split, PathsConfig(raw=str(folder / "raw"), hub=str(folder))))


def write(folder: Path, split: str, rows: list[dict[str, Any]], features: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=Features(features)).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def sample(source_id: str, picture: MediaRef, split: str = "val", **fields: Any) -> Sample:
    return Sample(f"x/{split}/{source_id}", "x", split, Form.vqa, (picture,), **fields)


TEXTVQA = (
    "textvqa",
    {"image_id": TEXT, "question_id": INT, "question": TEXT, "question_tokens": TEXTS, "image": Image(), "image_width": INT,
     "image_height": INT, "flickr_original_url": TEXT, "flickr_300k_url": TEXT, "answers": TEXTS, "image_classes": TEXTS,
     "set_name": TEXT, "ocr_tokens": TEXTS},
    {"image_id": "00aa", "question_id": 7, "question": "what?", "image": IMAGE, "answers": ["b", "a", "b"], "ocr_tokens": ["Z", "Y"]},
    [sample("7", MediaRef("pool", "00aa", relpath="train_images/00aa.jpg"), slots={"question": "what?", "ocr": ("Z", "Y")},
            answers=(Answer("b", 2), Answer("a")), group="00aa")],
)  # fmt: skip
VIZWIZ = (
    "vizwiz",
    {"question_id": TEXT, "image": Image(), "question": TEXT, "answers": TEXTS, "category": TEXT},
    {"question_id": "VizWiz_val_00000000.jpg", "image": IMAGE, "question": "what?", "answers": ["none", "NA", "none"], "category": "other"},
    [sample("VizWiz_val_00000000.jpg", MediaRef("pool", "VizWiz_val_00000000", relpath="val/VizWiz_val_00000000.jpg"),
            slots={"question": "what?"}, answers=(Answer("none", 2), Answer("NA")), group="VizWiz_val_00000000.jpg",
            meta={"answer_type": "other"})],
)  # fmt: skip
OKVQA = (
    "okvqa",
    {"question_id": TEXT, "image": Image(), "question": TEXT, "answers": TEXTS, "question_type": TEXT, "answer_type": TEXT},
    {"question_id": "516065", "image": IMAGE, "question": "what?", "answers": ["a", "a"], "question_type": "four", "answer_type": "other"},
    [sample("516065", MediaRef("pool", "51606"), slots={"question": "what?"}, answers=(Answer("a", 2),), group="51606",
            meta={"answer_type": "other", "question_type": "four"})],
)  # fmt: skip
NOCAPS = (
    "nocaps",
    {"image": Image(), "image_coco_url": TEXT, "image_date_captured": TEXT, "image_file_name": TEXT, "image_height": INT,
     "image_width": INT, "image_id": INT, "image_license": INT, "image_open_images_id": TEXT, "annotations_ids": List(INT),
     "annotations_captions": TEXTS},
    {"image": IMAGE, "image_file_name": "00bb.jpg", "image_id": 3, "image_open_images_id": "00bb", "annotations_captions": ["A.", "B."]},
    [sample("3", MediaRef("pool", "00bb", relpath="00bb.jpg"), answers=(Answer("A."), Answer("B.")))],
)  # fmt: skip
FLICKR = (
    "flickr30k",
    {"image": Image(), "caption": TEXTS, "sentids": TEXTS, "split": TEXT, "img_id": TEXT, "filename": TEXT},
    {"image": IMAGE, "caption": ["A ."], "split": "val", "img_id": "0", "filename": "1000092795.jpg"},
    [sample("1000092795", MediaRef("pool", "1000092795", relpath="1000092795.jpg"), answers=(Answer("A ."),))],
)  # fmt: skip
OCRVQA = (
    "ocrvqa",
    {"image": Image(), "image_id": TEXT, "questions": TEXTS, "answers": TEXTS, "ocr_tokens": TEXTS, "title": TEXT, "authorName": TEXT,
     "genre": TEXT, "image_width": INT, "image_height": INT, "image_url": TEXT, "set_name": TEXT},
    {"image": IMAGE, "image_id": "012X", "questions": ["p?", "q?"], "answers": ["P", "Q"], "ocr_tokens": ["W"], "image_url": "http://h/i/a.gif"},
    [sample(f"012X#{number}", MediaRef("pool", "012X", relpath="012X.gif"), slots={"question": asked, "ocr": ("W",)},
            answers=(Answer(said),), group="012X") for number, (asked, said) in enumerate([("p?", "P"), ("q?", "Q")])],
)  # fmt: skip
CASES = (TEXTVQA, VIZWIZ, OKVQA, NOCAPS, FLICKR, OCRVQA)


@pytest.mark.parametrize(("reader", "features", "row", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_row_with_its_picture(
    tmp_path: Path, reader: str, features: dict[str, Any], row: dict[str, Any], expected: list[Sample]
) -> None:
    full = {name: row.get(name) for name in features}
    found = entries(tmp_path, [full], features, reader=reader)
    assert [item for item, _ in found] == expected
    assert all(brought == {item.media[0].key: BYTES} for item, brought in found if isinstance(item, Sample))


@pytest.mark.parametrize(("reader", "features", "row", "expected"), CASES, ids=[case[0] for case in CASES])
def test_every_needed_column_is_named_when_it_is_lost(
    tmp_path: Path, reader: str, features: dict[str, Any], row: dict[str, Any], expected: list[Sample]
) -> None:
    from instructblip.data.readers.mirrors import MIRRORS

    lost = MIRRORS[reader].columns[-1]
    left = {name: kind for name, kind in features.items() if name != lost}
    with pytest.raises(ValueError, match=rf"has no column {lost}, which reader '{reader}' needs"):
        entries(tmp_path, [{name: row.get(name) for name in left}], left, reader=reader)


def test_textcaps_take_their_ocr_tokens_from_the_official_file(tmp_path: Path) -> None:
    features = {"image_id": TEXT, "image": Image(), "caption_str": TEXTS, "reference_strs": TEXTS}
    rows = [
        {"image_id": key, "image": IMAGE, "caption_str": ["A."], "reference_strs": ["A."]} for key in ("00aa", "00bb")
    ]
    with pytest.raises(ValueError, match=r"lacks what .*ocr\.json holds"):
        entries(tmp_path, rows, features, reader="textcaps", beside=["ocr.json"])
    (tmp_path / "raw/x").mkdir(parents=True)
    (tmp_path / "raw/x/ocr.json").write_text(json.dumps({"data": [{"image_id": "00aa", "ocr_tokens": ["Z", "Y"]}]}))
    found = entries(tmp_path, rows, features, reader="textcaps", beside=["ocr.json"])
    assert found[0] == (
        sample("00aa", MediaRef("pool", "00aa"), slots={"ocr": ("Z", "Y")}, answers=(Answer("A."),)),
        {"00aa": BYTES},
    )
    assert found[1] == (Drop("x/val/00bb", "picture is not in the OCR file"), {})


def test_gqa_joins_its_two_configs(tmp_path: Path) -> None:
    folder = tmp_path / "owner/name"
    instructions = {
        "id": TEXT,
        "imageId": TEXT,
        "question": TEXT,
        "answer": TEXT,
        "fullAnswer": TEXT,
        "isBalanced": Value("bool"),
    }
    rows = [
        {"id": number, "imageId": "n1", "question": "q?", "answer": "no", "fullAnswer": "No.", "isBalanced": True}
        for number in ("07", "8")
    ]
    write(folder / "ask", "testdev", rows, instructions)
    write(folder / "show", "testdev", [{"id": "n1", "image": IMAGE}], {"id": TEXT, "image": Image()})
    configs = [
        {"config_name": name, "data_files": [{"split": "testdev", "path": f"{name}/testdev-*"}]}
        for name in ("ask", "show")
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    mirror = Mirror(repo="owner/name", split="testdev", config="ask", pictures="show", reader="gqa")
    found = list(hub.entries(recipe(mirror), "val", PathsConfig(raw="raw", hub=str(tmp_path))))
    expected = [
        sample(number, MediaRef("pool", "n1", relpath="images/n1.jpg"), slots={"question": "q?"}, answers=(Answer("no"),), group="n1", meta={"fullAnswer": "No."})
        for number in ("07", "8")
    ]  # fmt: skip
    assert found == [(item, {"n1": BYTES}) for item in expected]


def test_a_split_without_a_mirror_says_why(tmp_path: Path) -> None:
    lossy = Recipe(
        name="x", splits={"val": Split(files=["x"], rows=1, reader="vqa")}, no_mirror="its mirrors lost image_id"
    )
    with pytest.raises(
        ValueError, match=r"x/val cannot be read from the hub: its mirrors lost image_id\. Use source=raw"
    ):
        list(hub.entries(lossy, "val", PathsConfig(raw="raw", hub=str(tmp_path))))


def test_an_absent_copy_names_the_command_that_makes_it(tmp_path: Path) -> None:
    mirror = Mirror(repo="owner/name", split="train", reader="vqav2")
    with pytest.raises(ValueError, match=r"hf download owner/name --repo-type dataset --local-dir"):
        list(hub.entries(recipe(mirror), "val", PathsConfig(raw="raw", hub=str(tmp_path))))


def test_without_a_network_the_hub_is_an_error_with_a_remedy() -> None:
    mirror = Mirror(repo="owner/name", split="train", reader="vqav2", revision="main")
    with pytest.raises(ValueError, match=r"owner/name, config None, split train cannot be read .*paths\.hub=DIR"):
        hub.version(mirror, None)
    assert hub.version(Mirror(repo="o/n", revision="0" * 40), None) == "0" * 40, "a pinned commit asks nobody"
