"""COCO's ids, one number under whatever name a picture has."""

from __future__ import annotations

from typing import Any

import pytest

from instructblip.data.readers.base import Context, image_id
from instructblip.data.sample import Answer, Candidates, Form, MediaRef

CONTEXT = Context("vqav2", "train", "coco", Form.vqa, ())


@pytest.mark.parametrize(
    "name", ["COCO_train2014_000000000094.jpg", "000000000094.jpg", "COCO_val2014_000000000094.jpg"]
)
def test_coco_ids_are_one_over_both_layouts(name: str) -> None:
    assert image_id(name) == 94


@pytest.mark.parametrize("name", ["94.jpg", "COCO_train2014_94.jpg", "x000000000094.jpg", "000000000094.jpg.jpg"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a COCO file name"):
        image_id(name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"slots": {"question": None}}, "question is None, not a text"),
        ({"slots": {"question": ["a", "b"]}}, "question is .*, not a text"),
        ({"slots": {"ocr": ("a", 7)}}, "ocr is 7, not a text"),
        ({"slots": {"history": (("a", None),)}}, "history is None, not a text"),
        ({"answers": (Answer(2),)}, "answer is 2, not a text"),  # type: ignore[arg-type]
        ({"answers": (Answer("a", 1, (1,)),)}, "confidence is 1, not a text"),  # type: ignore[arg-type]
        ({"answers": (Answer("half \ud800"),)}, "no valid Unicode"),
        ({"meta": {"type": "half \ud800"}}, "no valid Unicode"),
        ({"candidates": Candidates(("a", 3))}, "candidate is 3, not a text"),  # type: ignore[arg-type]
        ({"candidates": Candidates(("a", "b")), "gold": 2}, "the right one is 2"),
        ({"candidates": Candidates(("a", "b")), "gold": -1}, "the right one is -1"),
        ({"candidates": Candidates(vocab="yesno"), "gold": 10**30}, "the right one is 1000"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"vqav2/train/7: .*{words}"):
        CONTEXT.sample(7, MediaRef("coco", "9"), **fields)


@pytest.mark.parametrize("key", [9, None])
def test_a_picture_is_named_by_a_text(key: Any) -> None:
    with pytest.raises(ValueError, match="picture is"):
        CONTEXT.sample(7, MediaRef("coco", key))


@pytest.mark.parametrize("source_id", [None, True, 1.0, ["a"], "half \ud800"])
def test_an_id_is_a_text_or_a_whole_number(source_id: Any) -> None:
    with pytest.raises(ValueError, match="id "):
        CONTEXT.uid(source_id)
