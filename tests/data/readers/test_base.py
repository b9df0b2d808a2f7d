"""COCO's ids, one number under whatever name a picture has."""

from __future__ import annotations

import pytest

from instructblip.data.readers.base import image_id


@pytest.mark.parametrize(
    "name", ["COCO_train2014_000000000094.jpg", "000000000094.jpg", "COCO_val2014_000000000094.jpg"]
)
def test_coco_ids_are_one_over_both_layouts(name: str) -> None:
    assert image_id(name) == 94


@pytest.mark.parametrize("name", ["94.jpg", "COCO_train2014_94.jpg", "x000000000094.jpg", "000000000094.jpg.jpg"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a COCO file name"):
        image_id(name)
