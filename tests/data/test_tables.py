"""Tables give back exactly the Samples that went in, and are ordinary `datasets` files."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest

from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample, votes
from instructblip.data.tables import Table, write_table

MEDIA = (MediaRef("coco", "9", relpath="train2014/x.jpg"),)
SAMPLES = [
    Sample("d/s/1", "d", "s", Form.caption, MEDIA, answers=votes(["a cat", "a cat", "A dog. "])),
    Sample(
        "d/s/2#0", "d", "s", Form.rank, (*MEDIA, MediaRef("msvd", "v", "video")),
        slots={"question": "none", "ocr": ("a", "b"), "history": (("q", "a"), ("r", "s"))},
        answers=(Answer("NA", 2, ("yes", "no"), "na"),), candidates=Candidates(("x", "x", ""), relevance=(0.5, 0.0, 1.0)),
        gold=2, group="g", meta={"domain": "near", "level": 3},
    ),
    Sample("d/s/3", "d", "s", Form.classify, MEDIA, slots={"statement": "é\u2028"}, candidates=Candidates(vocab="truefalse"), gold=0),
]  # fmt: skip


def test_samples_survive(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    assert write_table(path, SAMPLES) == 3
    table = Table(path)
    assert [table.sample(row) for row in range(len(table))] == SAMPLES


def test_plain_datasets_opens_it_with_lengths(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    write_table(path, SAMPLES)
    rows = datasets.Dataset.from_file(str(path))
    assert rows["uid"][:] == ["d/s/1", "d/s/2#0", "d/s/3"]
    assert rows[0]["media"][0]["pool"] == "coco" and rows[0]["media"][0]["key"] == "9"
    assert Table(path).chars(np.array([2, 0])).tolist() == [[2, 0], [0, 6]]  # (5 + 5 + 7) / 3 votes


def test_a_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    def broken():
        yield SAMPLES[0]
        raise RuntimeError("source ended")

    with pytest.raises(RuntimeError):
        write_table(tmp_path / "t.arrow", broken())
    assert not list(tmp_path.iterdir())


def test_missing_and_empty_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prepare\.py recipe=vsr"):
        Table(tmp_path / "vsr" / "test.arrow")
    write_table(tmp_path / "t.arrow", [])
    with pytest.raises(ValueError, match="has no rows"):
        Table(tmp_path / "t.arrow")


@pytest.mark.parametrize(
    "change",
    [{"uid": "e/s/1"}, {"media": ()}, {"slots": {"caption_of": "x"}}],
)
def test_a_wrong_sample_is_refused(change: dict[str, object]) -> None:
    fields = {"uid": "d/s/1", "dataset": "d", "split": "s", "form": Form.vqa, "media": MEDIA, **change}
    with pytest.raises(ValueError):
        Sample(**fields)  # type: ignore[arg-type]


def test_candidates_are_inline_or_shared() -> None:
    for wrong in ({}, {"items": ("a",), "vocab": "v"}):
        with pytest.raises(ValueError, match="one of the two"):
            Candidates(**wrong)  # type: ignore[arg-type]
