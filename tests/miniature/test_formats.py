"""Statements of VSR are true of the scenes as labelled, balanced, and cannot be told without looking."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from instructblip.miniature.albums import Picture
from instructblip.miniature.scenes import Scene
from tests.miniature.files import load


def holds(statement: str, scene: Scene) -> bool:
    match = re.fullmatch(r"The (\w+) (\w+) is (left of|right of|above|below) the (\w+) (\w+)\.", statement)
    assert match, statement
    cells = {(item.colour, item.shape): divmod(item.cell, 3) for item in scene.objects}
    (row, column), (other_row, other_column) = cells[match[1], match[2]], cells[match[4], match[5]]
    return {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }[match[3]]


def test_statements_are_true_of_the_scene_as_labelled(tree: Path, by_id: dict[int, Picture]) -> None:
    for split, rows in {"train": 20, "dev": 12, "test": 400}.items():
        lines = load(tree / f"vsr/data/splits/zeroshot/{split}.jsonl")
        assert len(lines) == rows
        for row in lines:
            assert row["label"] == holds(row["caption"], by_id[int(Path(row["image"]).stem)].scene)
            assert row["caption"] == f"The {row['subj']} is {row['relation']} the {row['obj']}."
            assert (row["vote_false_validator_id"] == "[]") == bool(row["label"])


def test_statements_are_as_often_true_as_false(tree: Path) -> None:
    rows = load(tree / "vsr/data/splits/zeroshot/test.jsonl")
    for relation in ("left of", "right of", "above", "below"):
        labels = [row["label"] for row in rows if row["relation"] == relation]
        assert len(labels) > 80
        assert abs(sum(labels) / len(labels) - 0.5) < 0.03


def area_under_curve(scores: list[float], labels: list[int]) -> float:
    pairs = [
        (a > b) + (a == b) / 2
        for a, x in zip(scores, labels, strict=True)
        for b, y in zip(scores, labels, strict=True)
        if x and not y
    ]
    return sum(pairs) / len(pairs)


def test_label_cannot_be_told_without_looking(tree: Path) -> None:
    """Three standard errors of an area under 400 labels are about 0.09."""
    rows = load(tree / "vsr/data/splits/zeroshot/test.jsonl")
    labels = [row["label"] for row in rows]
    folders = [row["image_link"].split("/")[-2] for row in rows]
    files = [tree / "coco" / folder / row["image"] for folder, row in zip(folders, rows, strict=True)]
    shortcuts = {
        "file size": [float(file.stat().st_size) for file in files],
        "id": [float(file.stem) for file in files],
        "folder": [float(folder == "val2017") for folder in folders],
        "line": [float(line) for line in range(len(rows))],
        "text length": [float(len(row["caption"])) for row in rows],
        "annotator": [float(row["annotator_id"]) for row in rows],
    }
    for name, scores in shortcuts.items():
        assert 0.41 < area_under_curve(scores, labels) < 0.59, name


def test_label_cannot_be_told_from_the_words(tree: Path) -> None:
    """Votes of the words seen with either label in one half of the lines, tried on the other half."""
    rows = load(tree / "vsr/data/splits/zeroshot/test.jsonl")
    seen: Counter[str] = Counter()
    for row in rows[:200]:
        for pair in pairwise(row["caption"].split()):
            seen[" ".join(pair)] += 1 if row["label"] else -1
    guesses = [sum(seen[" ".join(pair)] for pair in pairwise(row["caption"].split())) > 0 for row in rows[200:]]
    right = sum(guess == bool(row["label"]) for guess, row in zip(guesses, rows[200:], strict=True))
    assert right / 200 < 0.6


def test_pictures_have_official_names_and_urls(tree: Path) -> None:
    for row in load(tree / "vsr/data/splits/zeroshot/test.jsonl"):
        host, folder, name = row["image_link"].rsplit("/", 2)
        assert host == "http://images.cocodataset.org"
        assert name == row["image"]
        assert (tree / "coco" / folder / name).is_file()
