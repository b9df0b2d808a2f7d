"""A plain logistic regression on what should tell nothing: it must stay at the floor."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def bag(texts: Sequence[str]) -> Numbers:
    """Which words each text has."""
    vocabulary = sorted({word for text in texts for word in text.split()})
    return np.array([[word in text.split() for word in vocabulary] for text in texts], dtype=float)


def hashed(numbers: Sequence[int]) -> Numbers:
    """Remainders, which would show an id that was dealt by a rule."""
    return np.array([[number % divisor == 0 for divisor in (2, 3, 5, 7)] + [number] for number in numbers], dtype=float)


def guesses(features: Numbers, labels: Sequence[int], fitted: int, penalty: float = 1e-2) -> Numbers:
    """Scores of the rows after the first `fitted`, on which the regression is fitted by gradient descent."""
    spread = features.std(axis=0)
    rows = (features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    seen, wanted = rows[:fitted], np.array(labels[:fitted], dtype=float)
    weights = np.zeros(rows.shape[1])
    for _ in range(500):
        error = 1 / (1 + np.exp(-seen @ weights)) - wanted
        weights -= 0.3 * (seen.T @ error / fitted + penalty * weights)
    return np.asarray(rows[fitted:] @ weights)


def area(scores: Numbers, labels: Sequence[int]) -> float:
    """Under the ROC curve."""
    is_true = np.array(labels, dtype=bool)
    difference = scores[is_true][:, None] - scores[~is_true][None, :]
    return float(((difference > 0) + (difference == 0) / 2).mean())
