"""Readers of closed questions: statements to judge, options to choose from, memes to classify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from instructblip.data.readers.base import Context, Drop, coco, image_id
from instructblip.data.sample import Candidates, Sample
from instructblip.files import read_jsonl


def vsr(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """VSR's JSON lines: no row id, so the line number is the id; 2017 file names."""
    for number, row in enumerate(read_jsonl(files[0])):
        relpath = "/".join(row["image_link"].split("/")[-2:])
        yield context.sample(
            number,
            coco(context, image_id(row["image"]), relpath),
            slots={"statement": row["caption"]},
            candidates=Candidates(vocab="truefalse"),
            gold=int(row["label"]),
            group=str(image_id(row["image"])),
            meta={"relation": row["relation"]},
        )
