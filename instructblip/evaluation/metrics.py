"""Metrics: pure functions to 0..1, each after an official scorer, and the names recipes call them by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from instructblip.data.sample import Sample
from instructblip.evaluation.answers import VARIANTS
from instructblip.evaluation.predictions import Prediction
from instructblip.names import lookup


def vqa_accuracy(prediction: str, answers: Sequence[str], variant: str) -> float:
    """Mean over the annotators, each left out once, of min(1, equal answers among the others / 3).

    `answers` holds one string an annotator, so a single annotator always scores 0. What is normalised first:
    `official_2021` (GT-Vision-Lab/VQA `vqaEval.py`): both sides, but neither when all annotators agree;
    `official_2017` (the same file before, LAVIS): the prediction, and of the answers only the punctuation;
    `evalai` (facebookresearch/mmf, the EvalAI server): both sides always, `,` `?` `'s` by a rule of its own.
    """
    if not answers:
        raise ValueError("VQA accuracy needs answers and there are none: the split is unlabelled")
    prediction, texts = lookup(variant, VARIANTS, "variant of VQA accuracy")(prediction, answers)
    equal, n = texts.count(prediction), len(texts)
    left_out_is_equal = equal * min(1.0, (equal - 1) / 3)
    left_out_differs = (n - equal) * min(1.0, equal / 3)
    return (left_out_is_equal + left_out_differs) / n


def multiple_choice(scores: Sequence[float], gold: int) -> float:
    """1.0 when the candidate at `gold` has the highest score, else 0.0; among equals the first wins.

    The argmax of cambridgeltl/visual-spatial-reasoning `eval.py`. Raises ValueError for a score that is NaN,
    which would win or lose by its place, and for a `gold` that is no candidate.
    """
    if nan := [index for index, score in enumerate(scores) if math.isnan(score)]:
        raise ValueError(f"the scores of candidates {nan} are NaN; predict again, in fp32 if need be")
    if not 0 <= gold < len(scores):
        raise ValueError(f"gold is {gold}, but there are {len(scores)} scores")
    return float(max(range(len(scores)), key=scores.__getitem__) == gold)


def _vqa_accuracy(prediction: Prediction, sample: Sample, variant: str) -> float:
    if prediction.output is None:
        raise ValueError("VQA accuracy needs a text, the prediction has scores")
    answers = [answer.text for answer in sample.answers for _ in range(answer.votes)]
    return vqa_accuracy(prediction.output, answers, variant)


def _multiple_choice(prediction: Prediction, sample: Sample) -> float:
    if prediction.scores is None:
        raise ValueError("a choice needs scores, the prediction has a text")
    if sample.gold is None:
        raise ValueError("no gold candidate is known: the split is unlabelled")
    return multiple_choice(prediction.scores, sample.gold)


Metric = Callable[[Prediction, Sample], float]
METRICS: dict[str, Metric] = {
    "multiple_choice": _multiple_choice,
    **{f"vqa_accuracy:{variant}": partial(_vqa_accuracy, variant=variant) for variant in VARIANTS},
}


def metric(name: str) -> Metric:
    """The metric a recipe names. Raises ValueError listing those there are."""
    return lookup(name, METRICS, "metric")
