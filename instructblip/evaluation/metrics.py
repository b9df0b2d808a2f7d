"""Metrics as pure functions, each after an official scorer, whose quirks are kept because they decide points.

Values lie in 0..1 (but for CIDEr, 0..10, and mean ranks), an undefined one is None. `answers` holds one string an
annotator, so that a string three of them gave stands there three times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from instructblip.evaluation.answers import VARIANTS, normalize, plain_words, strip_punctuation
from instructblip.evaluation.captions import caption_scores
from instructblip.names import lookup

__all__ = [
    "aokvqa_direct_answer",
    "auroc",
    "caption_scores",
    "gqa_accuracy",
    "ivqa_accuracy",
    "multiple_choice",
    "ocrvqa_accuracy",
    "textvqa_accuracy",
    "top1_accuracy",
    "visdial",
    "vizwiz_accuracy",
    "vqa_accuracy",
]
VISDIAL = ("mrr", "r@1", "r@5", "r@10", "mean_rank", "ndcg")


def vqa_accuracy(prediction: str, answers: Sequence[str], variant: str) -> float:
    """Mean over the annotators, each left out once, of min(1, equal answers among the others / 3).

    So a single annotator always scores 0. What is normalised first:
    `official_2021` (GT-Vision-Lab/VQA `vqaEval.py`): both sides, but neither when all annotators agree;
    `official_2017` (the same file before, LAVIS): the prediction, and of the answers only the punctuation;
    `evalai` (facebookresearch/mmf, the EvalAI server): both sides always, `,` `?` `'s` by a rule of its own.
    """
    _require_labelled(answers)
    return _soft_accuracy(*lookup(variant, VARIANTS, "variant of VQA accuracy")(prediction, answers))


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy, both sides normalised as on the EvalAI server.

    facebookresearch/mmf `m4c_evaluators.py`, `TextVQAAccuracyEvaluator`.
    """
    return vqa_accuracy(prediction, answers, "evalai")


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy, the prediction normalised and the answers never: one like "7-eleven" cannot be met.

    VizWiz VQA evaluator, `VQAEval.evaluate`.
    """
    _require_labelled(answers)
    return _soft_accuracy(normalize(prediction), answers)


def gqa_accuracy(prediction: str, answer: str, normalize: bool = False) -> float:
    """1.0 when both are the same string, to the letter: GQA's `eval.py`.

    `normalize`: without punctuation, articles and case first, on both sides, as LAVIS' `GQATask` compares them.
    """
    if normalize:  # not answers.normalize: LAVIS keeps line breaks and outer blanks, which decide what is deleted
        prediction, answer = plain_words(strip_punctuation(prediction)), plain_words(strip_punctuation(answer))
    return float(prediction == answer)


def ocrvqa_accuracy(prediction: str, answer: str) -> float:
    """1.0 when both are the same but for case and outer blanks.

    OCR-VQA has no official scorer beyond "accuracy"; this is VLMEvalKit's rule.
    """
    return float(prediction.strip().lower() == answer.strip().lower())


def aokvqa_direct_answer(prediction: str, answers: Sequence[str]) -> float:
    """min(1, equal answers / 3), nobody left out and nothing normalised: allenai/aokvqa `eval_predictions.py`.

    That script also drops the questions marked `difficult_direct_answer`.
    """
    _require_labelled(answers)
    return min(1.0, list(answers).count(prediction) / 3)


def multiple_choice(scores: Sequence[float], gold: int) -> float:
    """1.0 when the candidate at `gold` has the highest score, else 0.0; among equals the first wins.

    The argmax of cambridgeltl/visual-spatial-reasoning `eval.py`; ScienceQA, IconQA and A-OKVQA count the same way.
    Raises ValueError for a score that is NaN, and for a `gold` that is no candidate.
    """
    _require_candidate(scores, gold)
    return float(argmax(scores) == gold)


def top1_accuracy(prediction: str, answer: str) -> float:
    """1.0 when the best word of the vocabulary is the answer, to the letter.

    MSVD-QA and MSRVTT-QA as antoyang/just-ask `util.py`, `compute_aggreeings` counts them.
    """
    return float(prediction == answer)


def ivqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """min(1, equal answers / 2) of five annotators, to the letter: antoyang/just-ask, (counts / 2).clamp(max=1)."""
    _require_labelled(answers)
    return min(1.0, list(answers).count(prediction) / 2)


def visdial(
    scores: Sequence[float] | Sequence[Sequence[float]],
    gold: int | Sequence[int],
    relevance: Sequence[float] | Sequence[Sequence[float] | None] | None = None,
) -> dict[str, float | None]:
    """`mrr`, `r@1`, `r@5`, `r@10`, `mean_rank` and `ndcg` of one round, or their means over several.

    One round is the scores of its candidates, the gold one and, where known, their relevances; several rounds are
    lists of these. After `visdialch/metrics.py` of the VisDial challenge's starter code. Among equal scores the
    candidate that stands first ranks first (the official order of equals is not specified). `ndcg` is cut at the
    number of candidates with some relevance and is over the rounds that have any; None when none has.
    """
    if isinstance(gold, int):
        return _visdial_round(scores, gold, relevance)  # type: ignore[arg-type]
    if len(scores) != len(gold):
        raise ValueError(f"{len(scores)} rounds have scores, {len(gold)} a gold candidate")
    known = relevance or [None] * len(gold)
    rounds = [_visdial_round(*each) for each in zip(scores, gold, known, strict=True)]  # type: ignore[arg-type]
    return {name: mean([each[name] for each in rounds]) for name in VISDIAL}


def _visdial_round(scores: Sequence[float], gold: int, relevance: Sequence[float] | None) -> dict[str, float | None]:
    _require_candidate(scores, gold)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    rank = order.index(gold) + 1
    recalled = [float(rank <= k) for k in (1, 5, 10)]
    values = [1 / rank, *recalled, float(rank), _ndcg(order, relevance or ())]
    return dict(zip(VISDIAL, values, strict=True))


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are not None; None when none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def auroc(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """How often an item of class 1 scores above one of class 0, equal scores counting half; None without both classes.

    scikit-learn's `roc_auc_score`, the Hateful Memes metric. Raises ValueError for a NaN and for other labels.
    """
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels for {len(scores)} scores")
    if other := sorted(set(labels) - {0, 1}):
        raise ValueError(f"AUROC is of classes 0 and 1, there are labels {other}")
    require_numbers(scores)
    ordered = sorted(zip(scores, labels, strict=True))
    below = wins = 0.0
    for _, tied in groupby(ordered, key=lambda pair: pair[0]):
        classes = [label for _, label in tied]
        ones, zeros = classes.count(1), classes.count(0)
        wins += ones * (below + zeros / 2)
        below += zeros
    pairs = below * (len(labels) - below)
    return wins / pairs if pairs else None


def argmax(scores: Sequence[float]) -> int:
    """The first of the highest. Raises ValueError for a NaN."""
    require_numbers(scores)
    return max(range(len(scores)), key=scores.__getitem__)


def require_numbers(scores: Sequence[float]) -> None:
    """Raises ValueError for a NaN, which would win or lose by its place."""
    if nan := [index for index, score in enumerate(scores) if math.isnan(score)]:
        raise ValueError(f"the scores of candidates {nan[:5]} are NaN; predict again, in fp32 if need be")


def _soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    equal, n = list(answers).count(prediction), len(answers)
    left_out_is_equal = equal * min(1.0, (equal - 1) / 3)
    left_out_differs = (n - equal) * min(1.0, equal / 3)
    return (left_out_is_equal + left_out_differs) / n


def _ndcg(order: Sequence[int], relevance: Sequence[float]) -> float | None:
    if relevance and len(relevance) != len(order):
        raise ValueError(f"{len(relevance)} relevances for {len(order)} candidates")
    k = sum(value != 0 for value in relevance)
    best = _discounted(sorted(relevance, reverse=True)[:k])
    return _discounted([relevance[index] for index in order[:k]]) / best if k else None


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def _require_labelled(answers: Sequence[str]) -> None:
    if not answers:
        raise ValueError("this metric needs answers and there are none: the split is unlabelled")


def _require_candidate(scores: Sequence[float], gold: int) -> None:
    require_numbers(scores)
    if not 0 <= gold < len(scores):
        raise ValueError(f"gold is {gold}, but there are {len(scores)} scores")
