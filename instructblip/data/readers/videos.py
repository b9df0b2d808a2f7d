"""Readers of questions about clips: a clip is known by its name, and its file is that name with an extension."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import MediaRef, Sample, votes
from instructblip.files import read_json, read_text

ANNOTATORS = 5  # columns answer1 to answer5 of iVQA


def video_qa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Rows of MSVD-QA and MSRVTT-QA: one question, one word for an answer, the clip by number.

    MSVD's second file names its clips. The row's id is the id: many rows ask the same of the same clip and want
    another answer.
    """
    names = _clip_names(files[1]) if len(files) > 1 else None
    for row in read_json(files[0]):
        number = row["video_id"]
        clip = f"video{number}" if names is None else names.get(f"vid{number}")
        if clip is None:
            yield Drop(context.uid(row["id"]), f"clip without a name in {files[1].name}")
            continue
        yield context.sample(
            row["id"],
            MediaRef(context.pool, clip, "video", f"{clip}.mp4" if names is None else f"{clip}.avi"),
            slots={"question": row["question"]},
            answers=votes([row["answer"]]),
            group=clip,
            meta={"question_type": row["question"].split(" ", 1)[0]},
        )


def ivqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """iVQA's table: a clip by YouTube id and seconds, five annotators; no row id, so the line number is the id.

    Read as text: "none" and "NA" are answers. An annotator's empty cell is no vote.
    """
    with files[0].open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            given = [row[f"answer{annotator}"] or "" for annotator in range(1, ANNOTATORS + 1)]
            answers = votes([answer for answer in given if answer.strip()])
            if not answers:
                yield Drop(context.uid(number), "no answer")
                continue
            clip = f"{row['video_id']}_{row['start']}_{row['end']}"
            media = MediaRef(context.pool, clip, "video", f"{clip}.webm")
            yield context.sample(number, media, slots={"question": row["question"]}, answers=answers, group=clip)


def _clip_names(path: Path) -> dict[str, str]:
    """`youtube_mapping.txt`: a clip's name and `vid{number}` a line, whose ends may be Windows'."""
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if wrong := [row for row in rows if len(row) != 2]:
        raise ValueError(f"{path}: {' '.join(wrong[0])!r} is not a clip's name and number; download it again")
    return {number: name for name, number in rows}
