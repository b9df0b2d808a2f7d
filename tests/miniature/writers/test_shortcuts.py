"""What must not tell a label: size, name and folder of the file, ids, the place in the list, the words.

A plain logistic regression on all of them stays at the floor.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.miniature import files
from tests.miniature.evaluator import evaluate
from tests.miniature.files import Item, Pictures

Numbers = NDArray[np.float64]
Load = Callable[[str], Any]


class Row(NamedTuple):
    text: str
    file: Path
    label: bool
    id: int = 0


def bag(texts: Sequence[str]) -> Numbers:
    """Which words and pairs of words each text has."""
    said = [{*text.lower().split(), *map(" ".join, pairwise(text.lower().split()))} for text in texts]
    return np.array([[word in words for word in sorted(set().union(*said))] for words in said], dtype=float)


def hashed(number: int) -> list[float]:
    """Remainders, which would show an id that was dealt by a rule."""
    return [float(number), *(float(number % divisor == 0) for divisor in (2, 3, 5, 7))]


def features(rows: Sequence[Row]) -> Numbers:
    seen: Counter[Path] = Counter()
    others = []
    for line, (text, file, _, id) in enumerate(rows):
        name = int("".join(filter(str.isdigit, file.stem)))
        folder = sum(file.parent.name.encode())
        others.append([file.stat().st_size, folder, line, len(text), seen[file], *hashed(name), *hashed(id)])
        seen[file] += 1
    return np.hstack([bag([row.text for row in rows]), np.array(others)])


def guesses(features: Numbers, labels: Sequence[int], fitted: int, penalty: float = 1e-2) -> Numbers:
    """Scores of the rows after the first `fitted`, on which the regression is fitted by gradient descent."""
    spread = features[:fitted].std(axis=0)
    rows = (features - features[:fitted].mean(axis=0))[:, spread > 0] / spread[spread > 0]
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    seen, wanted = rows[:fitted], np.array(labels[:fitted], dtype=float)
    weights = np.zeros(rows.shape[1])
    for _ in range(500):
        error = 1 / (1 + np.exp(-seen @ weights)) - wanted
        weights -= 0.1 * (seen.T @ error / fitted + penalty * weights)
    return np.asarray(rows[fitted:] @ weights)


def area(rows: Sequence[Row]) -> float:
    """Under the ROC curve, of the second half of the rows by a regression on the first."""
    labels = np.array([row.label for row in rows])
    half = len(rows) // 2
    scores, is_true = guesses(features(rows), labels, half), labels[half:]
    difference = scores[is_true][:, None] - scores[~is_true][None, :]
    return float(((difference > 0) + (difference == 0) / 2).mean())


def closed(tree: Path, pool: str, items: Sequence[Item], program: str) -> Iterator[Row]:
    """Items of one program whose answers are yes and no."""
    for item in items:
        if evaluate(item.question, item.picture).program == program:
            yield Row(item.question, tree / pool / item.picture.file, item.votes[0].lower() == "yes")


def test_labels_cannot_be_told_without_looking(written: Path, load: Load, tree: Path, by_key: Pictures) -> None:
    sets = {
        "exists of vqav2": list(closed(tree, "coco", files.vqav2(tree, by_key, "train2014"), "exists")),
        "genres of ocrvqa": list(closed(tree, "amazon_books", files.ocrvqa(tree, by_key, 1), "about-genre")),
        "vsr": [
            Row(row["caption"], next(written.glob(f"coco/*/{row['image']}")), bool(row["label"]), row["annotator_id"])
            for row in load("vsr/data/splits/zeroshot/test.jsonl")
        ],
        "hateful_memes": [
            Row(row["text"], written / "hateful_memes" / row["img"], bool(row["label"]), row["id"])
            for row in load("hateful_memes/dev_seen.jsonl")
        ],
    }
    for name, rows in sets.items():
        assert len(rows) > 100
        assert abs(sum(row.label for row in rows) / len(rows) - 0.5) < 0.05, name
        three_errors = 3 / (3 * len(rows) / 2) ** 0.5  # of an area under labels that are half true
        assert abs(area(rows) - 0.5) < three_errors, name


def test_options_cannot_be_chosen_without_looking(written: Path, load: Load) -> None:
    """A regression on question, option, its place and the picture's size and name chooses no better than chance."""
    root = written / "iconqa/iconqa_data/iconqa/test/choose_txt"
    folders = sorted(root.glob("*"), key=lambda folder: folder.name[::-1])
    problems = [load(str((folder / "data.json").relative_to(written))) for folder in folders]
    texts, others, labels, owners = [], [], [], []
    for k, (folder, row) in enumerate(zip(folders, problems, strict=True)):
        for place, choice in enumerate(row["choices"]):
            texts.append(f"{row['question'].replace(' ', '_')}|{choice} {choice} place{place}")
            others.append([(folder / "image.png").stat().st_size, place, *hashed(int(folder.name))])
            labels.append(int(place == row["answer"]))
            owners.append(k)
    fitted = owners.index(len(problems) // 2)
    scores = guesses(np.hstack([bag(texts), np.array(others)]), labels, fitted)
    best: dict[int, tuple[float, int]] = defaultdict(lambda: (-np.inf, 0))
    for owner, score, label in zip(owners[fitted:], scores, labels[fitted:], strict=True):
        best[owner] = max(best[owner], (float(score), label))
    right = float(np.mean([label for _, label in best.values()]))
    chance = float(np.mean([1 / len(problems[owner]["choices"]) for owner in best]))
    assert right < chance + 3 * (0.25 / len(best)) ** 0.5, (right, chance)


@pytest.mark.parametrize("shortcut", ["text", "size", "name", "id"])
def test_the_regression_finds_a_shortcut(tmp_path: Path, shortcut: str) -> None:
    """Otherwise the tests above would show nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for k, label in enumerate(rng.integers(0, 2, 400).astype(bool)):
        number = 2 * k + int(label if shortcut == "name" else rng.integers(0, 2))
        file = tmp_path / f"{number}.jpg"
        file.write_bytes(b"x" * int(1000 + 50 * (label and shortcut == "size") + rng.integers(0, 50)))
        word = rng.choice(["red", "blue"]) if shortcut != "text" else "red" if label else "blue"
        rows.append(
            Row(f"Is there a {word} star?", file, label, int(rng.integers(0, 99)) * 2 + (shortcut == "id" and label))
        )
    assert area(rows) > 0.8
