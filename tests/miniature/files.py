"""What a written tree asks: every question of a set with its picture and votes, read without the project's readers."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instructblip.miniature.albums import Picture

Pictures = Mapping[tuple[str, str], Picture]


class Item(NamedTuple):
    question: str
    picture: Picture
    votes: list[str]
    row: dict[str, Any]


def load(file: Path) -> Any:
    lines = file.read_text().splitlines()
    return [json.loads(line) for line in lines] if file.suffix == ".jsonl" else json.loads("".join(lines))


def coco(by_key: Pictures) -> dict[int, Picture]:
    return {picture.id: picture for (pool, _), picture in by_key.items() if pool == "coco"}


def joined(tree: Path, by_key: Pictures, questions: str, annotations: str) -> Iterator[Item]:
    """VQA's two files."""
    asked, answered = load(tree / questions)["questions"], load(tree / annotations)["annotations"]
    assert len(asked) == len({row["question_id"] for row in asked})
    pictures = coco(by_key)
    for question, row in zip(asked, answered, strict=True):
        assert question["question_id"] == row["question_id"]
        assert question["image_id"] == row["image_id"]
        yield Item(question["question"], pictures[row["image_id"]], [vote["answer"] for vote in row["answers"]], row)


def vqav2(tree: Path, by_key: Pictures, subset: str) -> list[Item]:
    names = f"vqav2/v2_OpenEnded_mscoco_{subset}_questions.json", f"vqav2/v2_mscoco_{subset}_annotations.json"
    return list(joined(tree, by_key, *names))


def okvqa(tree: Path, by_key: Pictures, subset: str) -> list[Item]:
    names = f"okvqa/OpenEnded_mscoco_{subset}_questions.json", f"okvqa/mscoco_{subset}_annotations.json"
    return list(joined(tree, by_key, *names))


def aokvqa(tree: Path, by_key: Pictures, split: str) -> list[Item]:
    pictures, rows = coco(by_key), load(tree / f"aokvqa/aokvqa_v1p0_{split}.json")
    return [Item(row["question"], pictures[row["image_id"]], row["direct_answers"], row) for row in rows]


def ocrvqa(tree: Path, by_key: Pictures, split: int) -> list[Item]:
    rows = load(tree / "ocrvqa/dataset.json")
    return [
        Item(question, by_key["amazon_books", key], [answer], row)
        for key, row in rows.items()
        if row["split"] == split
        for question, answer in zip(row["questions"], row["answers"], strict=True)
    ]


def vizwiz(tree: Path, by_key: Pictures, split: str) -> list[Item]:
    return [
        Item(row["question"], by_key["vizwiz", Path(row["image"]).stem], [v["answer"] for v in row["answers"]], row)
        for row in load(tree / f"vizwiz/{split}.json")
    ]


def textvqa(tree: Path, by_key: Pictures, split: str) -> list[Item]:
    return [
        Item(row["question"], by_key["openimages_textvqa", row["image_id"]], row["answers"], row)
        for row in load(tree / f"textvqa/TextVQA_0.5.1_{split}.json")["data"]
    ]
