"""MSVD-QA, MSRVTT-QA and iVQA: what the decoded frames show is what the answers say."""

import csv
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from instructblip.miniature.clips import Clip
from instructblip.miniature.scenes import CELL, COLOURS, Role
from instructblip.miniature.world import World
from instructblip.miniature.writers.videos import Film, ivqa, msrvtt, msvd

Load = Callable[[str], Any]
SPLITS = ("train", "val", "test")
ROLES = dict(zip(SPLITS, (Role.tuning, Role.selection, Role.evaluation), strict=True))


def msrvtt_films(world: World, split: str) -> list[Film]:
    first = {"train": 0, "val": 50, "test": 60}[split]
    return msrvtt(world, split, first)


def answer(question: str, clip: Clip) -> str:
    assert clip.mover
    (row, column), (end_row, end_column) = divmod(clip.mover.cell, 3), divmod(clip.cell, 3)
    if question.lower().startswith("what"):
        return clip.mover.shape if "what shape" in question.lower() else clip.mover.colour
    name = f"{clip.mover.colour} {clip.mover.shape}"
    assert name in question
    if question.lower().startswith("which way"):
        assert (row == end_row) != (column == end_column)
        if row == end_row:
            return "right" if end_column > column else "left"
        return "down" if end_row > row else "up"
    match = re.fullmatch(r"in which (column|row) is the .+ (at first|at the end)", question.lower().rstrip("?"))
    assert match, question
    if match[1] == "column":
        return ("left", "center", "right")[column if match[2] == "at first" else end_column]
    return ("top", "middle", "bottom")[row if match[2] == "at first" else end_row]


def frames(file: Path) -> list[np.ndarray]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def centre(frame: np.ndarray, colour: str) -> tuple[float, float]:
    rows, columns = np.nonzero(np.abs(frame - COLOURS[colour]).max(axis=2) < 50)
    return float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize("name", ["msvd", "msrvtt"])
@pytest.mark.parametrize("split", SPLITS)
def test_one_word_answers_are_true_of_the_clip(load: Load, world: World, name: str, split: str) -> None:
    films = {"msvd": msvd, "msrvtt": msrvtt_films}[name](world, split)
    rows = load(f"{name}_qa/{split}_qa.json")
    assert len(rows) == world.sizes[f"{name}_qa_{split}"]
    first = rows[0]["video_id"]
    for row in rows:
        assert row["answer"] == answer(row["question"], films[row["video_id"] - first].clip)
        assert len(row["answer"].split()) == 1
    asked = Counter((row["question"].split()[0], row["answer"]) for row in rows)
    ways = [asked[("which", way)] for way in ("left", "right", "up", "down")]
    assert max(ways) - min(ways) <= 3


@pytest.mark.parametrize("name", ["msvd", "msrvtt"])
def test_ids_run_on_over_the_splits(load: Load, name: str) -> None:
    rows = [row for split in SPLITS for row in load(f"{name}_qa/{split}_qa.json")]
    assert [row["id"] for row in rows] == list(range(len(rows)))
    videos = list(dict.fromkeys(row["video_id"] for row in rows))
    assert videos == list(range(videos[0], videos[0] + len(videos)))
    assert videos[0] == (1 if name == "msvd" else 0)


def test_every_clip_of_msvd_has_a_name_and_a_file(written: Path, world: World) -> None:
    raw = (written / "msvd_qa/youtube_mapping.txt").read_bytes()
    lines = raw.decode().split("\r\n")
    assert lines.pop() == "" and b"\n" not in raw.replace(b"\r\n", b"")
    films = [film for split in SPLITS for film in msvd(world, split)]
    for number, (line, film) in enumerate(zip(lines, films, strict=True), start=1):
        assert line == f"{film.name} vid{number}"
        assert re.fullmatch(r"[\w-]{11}_\d+_\d+", film.name)
        assert (written / f"msvd/YouTubeClips/{film.name}.avi").is_file()
    assert len(films) == len({film.name for film in films}) == len(list((written / "msvd").rglob("*.avi")))


def test_answer_lists(load: Load) -> None:
    for name, splits in {"msvd": SPLITS, "msrvtt": ("train",)}.items():
        answers = {row["answer"] for split in splits for row in load(f"{name}_qa/{split}_qa.json")}
        assert load(f"{name}_qa/qa_ans2label.json") == {text: k for k, text in enumerate(sorted(answers))}


@pytest.mark.parametrize("split", SPLITS)
def test_annotators_of_ivqa_agree_on_what_the_clip_shows(written: Path, world: World, split: str) -> None:
    films = ivqa(world, split)
    with (written / f"ivqa/{split}.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    still = 0
    for row, film in zip(rows, films, strict=True):
        assert film.name == f"{row['video_id']}_{row['start']}_{row['end']}"
        assert (written / f"ivqa/{film.name}.webm").is_file()
        given = [row[f"answer{k}"] for k in range(1, 6)]
        assert not row["question"].endswith("?")
        assert all(0 < len(text.split()) <= 4 for text in given)
        if film.clip.mover:
            assert given.count(answer(row["question"], film.clip)) >= 3
        else:
            still += 1
            assert sorted(given) == ["NA", "none", "none", "none", "nothing"]
    assert 0.08 < still / len(rows) < 0.16


@pytest.mark.parametrize(
    ("folder", "suffix"), [("msvd/YouTubeClips", "avi"), ("msrvtt/TestVideo", "mp4"), ("ivqa", "webm")]
)
def test_four_frames_show_the_motion(written: Path, world: World, folder: str, suffix: str) -> None:
    films = {"avi": msvd, "mp4": msrvtt_films, "webm": ivqa}[suffix](world, "test")
    shown = 0
    for film in films:
        clip = film.clip
        decoded = frames(written / folder / f"{film.name}.{suffix}")
        assert len(decoded) == 8 and decoded[0].shape == (48, 48, 3)
        if not clip.mover:
            assert np.abs(decoded[0] - decoded[-1]).max() < 30
            continue
        if [item.colour for item in clip.before.objects].count(clip.mover.colour) > 1:
            continue
        shown += 1
        path = [centre(decoded[k], clip.mover.colour) for k in (0, 2, 4, 7)]
        start, end = (
            (cell % 3 * CELL + CELL / 2, cell // 3 * CELL + CELL / 2) for cell in (clip.mover.cell, clip.cell)
        )
        assert np.abs(np.subtract(path[0], start)).max() < 2.5 and np.abs(np.subtract(path[3], end)).max() < 2.5
        way = np.subtract(end, start) / np.linalg.norm(np.subtract(end, start))
        along = [float(np.dot(point, way)) for point in path]
        assert along == sorted(along) and len({round(value) for value in along}) == 4
    assert shown > 20


def test_scenes_of_clips_keep_their_roles_from_first_to_last(world: World) -> None:
    for split, role in ROLES.items():
        for film in [*msvd(world, split), *msrvtt_films(world, split), *ivqa(world, split)]:
            assert film.clip.before.role is film.clip.after.role is role
