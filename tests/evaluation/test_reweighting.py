"""A corpus of weights against the official scorers on the corpus itself, items repeated as the weights say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from instructblip.evaluation import captions, metrics, reweighting

WORDS = ["a", "red", "bus", "dog", "in", "the", "snow", "street", "on", "two"]
WEIGHTS = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [0, 2, 0, 3, 1, 0, 1, 1], [0, 0, 8, 0, 0, 0, 0, 0]], dtype=np.float64)


@pytest.fixture
def corpus() -> tuple[captions.Tokens, captions.Tokens]:
    rng = np.random.default_rng(3)

    def text() -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(1, 9)))

    references = {str(item): [text() for _ in range(rng.integers(1, 4))] for item in range(8)}
    return references, {str(item): [references[str(item)][0] if item % 3 else text()] for item in range(8)}


def repeated(tokens: captions.Tokens, weights: np.ndarray) -> captions.Tokens:
    places = np.repeat(np.arange(len(weights)), weights.astype(int))
    return {f"{draw}": tokens[str(item)] for draw, item in enumerate(places)}


@pytest.mark.parametrize(("name", "build"), [("CIDEr", reweighting.cider), ("Bleu_4", reweighting.bleu4)])
def test_a_drawn_corpus_of_captions_scores_as_the_official_scorer_scores_it(
    corpus: tuple[captions.Tokens, captions.Tokens], name: str, build: Callable[..., reweighting.Weighted]
) -> None:
    official = [captions.score(name, *(repeated(each, row) for each in corpus)).value for row in WEIGHTS]
    assert build(*corpus)(WEIGHTS) == pytest.approx(official, rel=1e-9, abs=1e-12)
    assert official[0] > 0.05


def test_captions_without_a_common_word_or_without_any_score_zero() -> None:
    references = {"0": ["a bus"], "1": ["the dog"], "2": [""]}
    said = {"0": ["snow"], "1": [""], "2": [""]}
    assert reweighting.cider(references, said)(WEIGHTS[:2, :3]).tolist() == [0.0, 0.0]


def test_a_drawn_auroc_is_that_of_the_items_drawn() -> None:
    labels, scores = [0, 1, 1, 0, 1, 0, 1, 0], [0.1, 0.4, 0.4, 0.4, -2.0, 0.3, 0.9, -2.0]
    drawn = reweighting.auroc(labels, scores)(WEIGHTS)
    for value, row in zip(drawn, WEIGHTS.astype(int), strict=True):
        places = np.repeat(np.arange(8), row)
        expected = metrics.auroc([labels[at] for at in places], [scores[at] for at in places])
        assert np.isnan(value) if expected is None else value == pytest.approx(expected)


def test_a_drawn_mean_leaves_out_what_does_not_count() -> None:
    weighted = reweighting.mean([1.0, None, 0.0, 0.5])
    assert weighted(np.array([[1.0, 5, 1, 0], [0, 0, 1, 3]])).tolist() == [0.5, 0.375]
    assert np.isnan(weighted(np.array([[0.0, 2, 0, 0]]))).all()
