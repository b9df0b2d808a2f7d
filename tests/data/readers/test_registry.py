"""A file that is not what its recipe says is refused with its name, whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.data.readers.registry import read
from instructblip.data.sample import Sample

ROW = {"id": 42953, "img": "img/42953.png", "label": 0, "text": "none"}
CSV = "video_id,start,end,question,answer1,answer2,answer3,answer4,answer5\n"


def written(raw: Path, recipe: str, name: str, content: bytes) -> list[Sample]:
    path = raw / recipe / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    split = next(split for split, facts in recipes.load(recipe).splits.items() if name in facts.files)
    return [item for item in read(recipes.load(recipe), split, raw) if isinstance(item, Sample)]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"questions": {"a": 1}}', b'{"questions": [', b"\0", b'"\xff"', b"[" * 100_000,
        b'{"questions": [{"question_id": ' + b"9" * 5000 + b"}]}",
        b'{"questions": [{"question_id": 1, "image_id": 2, "question": null}]}',
        '{"questions": []}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_a_json_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    name = "v2_OpenEnded_mscoco_test2015_questions.json"
    with pytest.raises(ValueError, match=name):
        written(tmp_path, "vqav2", name, content)


@pytest.mark.parametrize(
    "content",
    [
        CSV.replace("question", "asked").encode() + b"v,1,2,what,a,a,a,a,a\n",
        CSV.encode() + b"v,1,2,what,\xff,a,a,a,a\n",
        CSV.encode() + b'v,1,2,what,"' + b"x" * 200_000,
    ],
)
def test_a_csv_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"test\.csv"):
        written(tmp_path, "ivqa", "test.csv", content)


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "vizwiz/val.json").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"val\.json cannot be read \(Is a directory\)"):
        list(read(recipes.load("vizwiz"), "val", tmp_path))


@pytest.mark.parametrize(
    "written_by",
    [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\n" + text + b"\n"],
)
def test_marks_of_other_systems_change_nothing(tmp_path: Path, written_by: Callable[[bytes], bytes]) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in (ROW, {**ROW, "img": "img/1.png"}))
    plain = written(tmp_path / "plain", "hateful_memes", "dev_seen.jsonl", lines)
    assert written(tmp_path / "other", "hateful_memes", "dev_seen.jsonl", written_by(lines)) == plain
    assert len(plain) == 2 and plain[0].slots == {"statement": "none"}
