"""Scores of a corpus in which each item stands as often as a weight says: what a bootstrap draws, thousands at a time.

Exact: documents of CIDEr are counted anew, BLEU's counts are summed anew, AUROC is of the drawn items. An item of
weight 2 is two items. D draws, n items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

FLOATS = NDArray[np.float64]
INTEGERS = NDArray[np.int64]
Weighted = Callable[[FLOATS], FLOATS]  # (D, n) weights -> (D,) scores, NaN where undefined
Tokens = Mapping[str, Sequence[str]]  # by item: captions, each its tokens joined by blanks
LONGEST = 4  # n-grams of CIDEr and BLEU-4
SIGMA = 6.0  # of CIDEr-D's length penalty


def mean(items: Sequence[float | None]) -> Weighted:
    """The mean of the items that are not None."""
    counts = np.array([item is not None for item in items], dtype=np.float64)
    values = np.array([item or 0.0 for item in items])

    def weighted(weights: FLOATS) -> FLOATS:
        with np.errstate(invalid="ignore"):
            means: FLOATS = (weights @ values) / (weights @ counts)
        return means

    return weighted


def auroc(labels: Sequence[int], scores: Sequence[float]) -> Weighted:
    """How often an item of class 1 scores above one of class 0, equal scores counting half."""
    values = np.array(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ones = np.array(labels, dtype=np.float64)[order]
    ranked = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))  # of groups of equal scores

    def weighted(weights: FLOATS) -> FLOATS:
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * ones, starts, axis=1)  # (D, groups)
        negative = np.add.reduceat(drawn * (1 - ones), starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        wins = (positive * (below + negative / 2)).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return wins / (positive.sum(axis=1) * negative.sum(axis=1))

    return weighted


def bleu4(references: Tokens, predictions: Tokens) -> Weighted:
    """BLEU-4 of the summed counts, the reference of the closest length: pycocoevalcap `BleuScorer`."""
    rows = [_bleu_counts(list(references[item]), predictions[item][0]) for item in predictions]
    counts = np.array(rows, dtype=np.float64)  # (n, 2 + 2 * LONGEST)

    def weighted(weights: FLOATS) -> FLOATS:
        said, true, *rest = (weights @ counts).T
        correct, guess = np.array(rest[:LONGEST]), np.array(rest[LONGEST:])  # (LONGEST, D)
        precision = np.prod((correct + 1e-15) / (guess + 1e-9), axis=0) ** (1 / LONGEST)
        ratio = (said + 1e-15) / (true + 1e-9)
        return np.where(ratio < 1, precision * np.exp(1 - 1 / np.minimum(ratio, 1.0)), precision)

    return weighted


def cider(references: Tokens, predictions: Tokens) -> Weighted:
    """CIDEr-D with the document frequencies of the drawn items: pycocoevalcap `CiderScorer`."""
    corpus = _Corpus.of(references, predictions)

    def weighted(weights: FLOATS) -> FLOATS:
        return np.array([corpus.score(row) for row in weights])

    return weighted


def later(build: Callable[[Tokens, Tokens], Weighted], references: Tokens, predictions: Tokens) -> Weighted:
    """Counts n-grams only once a draw is asked for."""
    built = cache(partial(build, references, predictions))
    return lambda weights: built()(weights)


@dataclass(frozen=True, slots=True)
class _Corpus:
    """What CIDEr needs of n-grams, as sparse entries. A text is a caption or a reference, a pair the two of them.

    A slot is a text or a pair times LONGEST plus the n-gram's length less one.
    """

    document_gram: INTEGERS  # of each n-gram in the references of each item
    document_item: INTEGERS
    norm_slot: INTEGERS  # of each n-gram in each text
    norm_gram: INTEGERS
    norm_square: FLOATS  # its count there, squared
    dot_slot: INTEGERS  # of each n-gram that both of a pair have
    dot_gram: INTEGERS
    dot_product: FLOATS  # min(count in the caption, in the reference) * count in the reference
    pair_caption: INTEGERS  # the texts of a pair
    pair_reference: INTEGERS
    pair_item: INTEGERS
    pair_share: FLOATS  # length penalty, over LONGEST and the number of references, times 10
    grams: int
    texts: int

    @classmethod
    def of(cls, references: Tokens, predictions: Tokens) -> _Corpus:
        known: dict[tuple[str, ...], int] = {}
        documents: list[tuple[int, int]] = []
        norms: list[tuple[int, int, int]] = []
        dots: list[tuple[int, int, int]] = []
        pairs: list[tuple[int, int, int, float]] = []
        texts = 0
        for item, name in enumerate(predictions):
            counted = [_grams(text, known) for text in (predictions[name][0], *references[name])]
            said, *truths = counted
            for place, (counts, _) in enumerate(counted, start=texts):
                norms += [(place * LONGEST + size, gram, count**2) for (size, gram), count in counts.items()]
            documents += [(gram, item) for gram in {gram for counts, _ in truths for _, gram in counts}]
            for place, (counts, bigrams) in enumerate(truths, start=1):
                dots += [
                    (len(pairs) * LONGEST + size, gram, min(said[0][size, gram], count) * count)
                    for (size, gram), count in counts.items()
                    if (size, gram) in said[0]
                ]
                penalty = np.exp(-((said[1] - bigrams) ** 2) / (2 * SIGMA**2))
                pairs.append((texts, texts + place, item, 10 * penalty / LONGEST / len(truths)))
            texts += len(counted)
        document_gram, document_item = _columns(documents, 2)
        norm_slot, norm_gram, norm_square = _columns(norms, 3)
        dot_slot, dot_gram, dot_product = _columns(dots, 3)
        caption, reference, owner = _columns([each[:3] for each in pairs], 3)
        return cls(
            document_gram, document_item, norm_slot, norm_gram, norm_square.astype(np.float64),
            dot_slot, dot_gram, dot_product.astype(np.float64), caption, reference, owner,
            np.array([each[3] for each in pairs]), len(known), texts,
        )  # fmt: skip

    def score(self, weights: FLOATS) -> float:
        """Of one draw, (n,)."""
        frequency = np.bincount(self.document_gram, weights[self.document_item], self.grams)
        square = (np.log(weights.sum()) - np.log(np.maximum(1.0, frequency))) ** 2  # of the idf
        norms = np.bincount(self.norm_slot, self.norm_square * square[self.norm_gram], self.texts * LONGEST)
        dots = np.bincount(self.dot_slot, self.dot_product * square[self.dot_gram], len(self.pair_item) * LONGEST)
        caption, reference = (norms.reshape(-1, LONGEST)[side] for side in (self.pair_caption, self.pair_reference))
        size = np.sqrt(caption * reference)  # (pairs, LONGEST); where it is 0, so is the product
        cosines = np.divide(dots.reshape(-1, LONGEST), size, out=np.zeros_like(size), where=size > 0).sum(axis=1)
        return float((weights[self.pair_item] * self.pair_share * cosines).sum() / weights.sum())


def _grams(text: str, known: dict[tuple[str, ...], int]) -> tuple[Counter[tuple[int, int]], int]:
    """Counts by (length less one, number of the n-gram), and how many bigrams: CIDEr-D's length of a caption."""
    words = text.split()
    found = [
        (size - 1, known.setdefault(tuple(words[at : at + size]), len(known)))
        for size in range(1, LONGEST + 1)
        for at in range(len(words) - size + 1)
    ]
    return Counter(found), max(0, len(words) - 1)


def _bleu_counts(references: Sequence[str], prediction: str) -> list[int]:
    """Length said, length of the closest reference, n-grams that are right, n-grams said."""
    known: dict[tuple[str, ...], int] = {}
    (said, _), *truths = [_grams(text, known) for text in (prediction, *references)]
    correct, guess = [0] * LONGEST, [0] * LONGEST
    for (size, gram), count in said.items():
        guess[size] += count
        correct[size] += min(count, max(counts[size, gram] for counts, _ in truths))
    length = len(prediction.split())
    closest = min((abs(len(text.split()) - length), len(text.split())) for text in references)[1]
    return [length, closest, *correct, *guess]


def _columns(rows: Sequence[tuple[int, ...]], width: int) -> list[INTEGERS]:
    return list(np.array(rows, dtype=np.int64).reshape(-1, width).T.copy())
