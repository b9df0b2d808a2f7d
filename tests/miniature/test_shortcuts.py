"""What must not tell a label: the file's size and name, its place in the list, the words of the question."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.miniature import files
from tests.miniature.evaluator import evaluate
from tests.miniature.files import Item, Pictures

BUCKETS = 64  # of hashed words


def features(text: str, picture: Path, place: float, nth: int) -> NDArray[np.float64]:
    """Size and name of the picture's file, place in the list, which question about it, words and pairs of words."""
    name = hashlib.sha256(picture.name.encode()).digest()
    row = np.zeros(BUCKETS + 12)
    words = text.lower().split()
    for word in [*words, *pairwise(words)]:
        row[int(hashlib.sha256(str(word).encode()).hexdigest(), 16) % BUCKETS] += 1
    row[BUCKETS:] = [picture.stat().st_size / 1000, place, nth, *(byte / 255 for byte in name[:8]), 1]
    return row


def accuracy(rows: NDArray[np.float64], labels: NDArray[np.float64], steps: int = 400) -> float:
    """Of a logistic regression fitted to the even rows, on the odd ones."""
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    weights = np.zeros(rows.shape[1])
    for _ in range(steps):
        guess = 1 / (1 + np.exp(-rows[::2] @ weights))
        weights -= 0.3 * (rows[::2].T @ (guess - labels[::2]) / len(guess) + 0.05 * weights)
    return float(((rows[1::2] @ weights > 0) == labels[1::2]).mean())


def closed(items: Sequence[Item], program: str) -> list[Item]:
    return [item for item in items if evaluate(item.question, item.picture).program == program]


def assert_blind(tree: Path, pool: str, items: Sequence[Item]) -> None:
    labels = np.array([item.votes[0].lower() == "yes" for item in items], dtype=float)
    asked: Counter[str] = Counter()
    rows = []
    for k, item in enumerate(items):
        file = tree / pool / item.picture.file
        rows.append(features(item.question, file, k / len(items), asked[file.name]))
        asked[file.name] += 1
    floor = max(labels.mean(), 1 - labels.mean())
    assert abs(floor - 0.5) < 0.05
    assert accuracy(np.stack(rows), labels) < floor + 3 * np.sqrt(0.25 / (len(items) // 2))


def test_the_regression_finds_what_is_there(tmp_path: Path) -> None:
    """Otherwise the tests below would show nothing."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200).astype(float)
    rows = []
    for k, label in enumerate(labels):
        file = tmp_path / f"{k}.jpg"
        file.write_bytes(b"x" * int(1000 + 50 * label + rng.integers(0, 50)))
        rows.append(features("Is there a star?", file, k / 200, 0))
    assert accuracy(np.stack(rows), labels) > 0.8


def test_exists_of_vqav2(tree: Path, by_key: Pictures) -> None:
    assert_blind(tree, "coco", closed(files.vqav2(tree, by_key, "train2014"), "exists"))


def test_genres_of_ocrvqa(tree: Path, by_key: Pictures) -> None:
    assert_blind(tree, "amazon_books", closed(files.ocrvqa(tree, by_key, 1), "about-genre"))
