"""Some questions of each evaluated recipe with what every run answered, as they are scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instructblip.data import keyed
from instructblip.data.sample import Sample
from instructblip.data.shards import MediaPool
from instructblip.evaluation.answers import verbaliser
from instructblip.evaluation.measures import Measured, Pair, metric
from instructblip.evaluation.pages.pictures import Picture, of_sample
from instructblip.evaluation.predictions import Prediction
from instructblip.evaluation.tables.measuring import data_of, pairs
from instructblip.evaluation.tables.results import Result, Score

SHOWN = 5  # answers and candidates of a question, the best ones


@dataclass(frozen=True)
class Answered:
    """What a run answered; `score` is what this answer alone is worth, None where the metric is of the whole."""

    run: str
    way: str  # profile and variant
    text: str
    ranked: Sequence[tuple[str, float]]  # candidates with their log-likelihoods, the best first
    score: float | None
    truncated: bool


@dataclass
class Example:
    """A question; `error` is 1 less the mean score of its answers, None where no answer has a score."""

    uid: str
    recipe: str
    metric: str
    synthetic: bool
    prompt: str
    truth: str
    pictures: Sequence[Picture]
    answers: list[Answered] = field(default_factory=list)

    @property
    def error(self) -> float | None:
        known = [each.score for each in self.answers if each.score is not None]
        return 1 - sum(known) / len(known) if known else None


def examples(found: Sequence[Result], count: int) -> tuple[list[Example], list[str]]:
    """`count` questions a recipe, drawn by their uids and so the same for every run, and why some are missing.

    Only scores of whole splits with each question's own picture are shown.
    """
    if count < 0:
        raise ValueError(f"examples={count}: the page shows no fewer than 0 of a recipe")
    cards: dict[tuple[str, str, str], Example] = {}
    pools: dict[Path, dict[str, MediaPool]] = {}
    missing = []
    for result in found:
        for score in result.scores:
            if not count or score.facts["images"] != "own":
                continue
            try:
                read, data = pairs(result, score), data_of(result)
                worth = _worth(str(score.facts["metric"]), read)
            except ValueError as error:
                missing.append(f"{result.name}, {score.facts['recipe']}: {error}")
                continue
            for place in drawn([sample.uid for _, sample in read], count):
                prediction, sample = read[place]
                key = (str(score.facts["recipe"]), sample.uid, prediction.prompt)
                if key not in cards:
                    cards[key] = _card(result, score, prediction, sample, data, pools.setdefault(data, {}))
                cards[key].answers.append(_answered(result, score, prediction, sample, worth[place]))
    return list(cards.values()), missing


def drawn(uids: Sequence[str], count: int) -> list[int]:
    """Places of the `count` uids whose keyed hashes are the least."""
    return sorted(range(len(uids)), key=lambda place: keyed.key("examples", uids[place]))[:count]


def _worth(name: str, read: Sequence[Pair]) -> Sequence[float | None]:
    """What each answer is worth alone: its share of a mean, or the probability of the true class."""
    measured: Measured = metric(name)(read)
    if measured.items is not None:
        return measured.items
    return [_certainty(prediction, sample) if name == "auroc" else None for prediction, sample in read]


def _certainty(prediction: Prediction, sample: Sample) -> float | None:
    if sample.gold is None or prediction.scores is None or len(prediction.scores) != 2:
        return None
    return 1 / (1 + math.exp(prediction.scores[1 - sample.gold] - prediction.scores[sample.gold]))


def _card(
    result: Result, score: Score, prediction: Prediction, sample: Sample, data: Path, pools: dict[str, MediaPool]
) -> Example:
    return Example(
        sample.uid, str(score.facts["recipe"]), str(score.facts["metric"]), result.synthetic, prediction.prompt,
        _truth(sample), of_sample(sample, data, pools),
    )  # fmt: skip


def _answered(result: Result, score: Score, prediction: Prediction, sample: Sample, worth: float | None) -> Answered:
    way = "-".join(filter(None, [score.facts["profile"], score.facts.get("variant")]))
    ranked = sorted((prediction.top or {}).items(), key=lambda pair: -pair[1])[:SHOWN]
    if prediction.scores is not None and not ranked:
        ranked = sorted(zip(_choices(sample), prediction.scores, strict=True), key=lambda pair: -pair[1])[:SHOWN]
    text = prediction.output if prediction.output is not None else ranked[0][0] if ranked else ""
    return Answered(result.name, way, text, ranked, worth, prediction.truncated)


def _truth(sample: Sample) -> str:
    if sample.gold is not None and (choices := _choices(sample)):
        return choices[sample.gold]
    told = sorted(sample.answers, key=lambda answer: -answer.votes)
    more = f", and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return "; ".join(f"{each.text} ({each.votes})" if each.votes > 1 else each.text for each in told[:SHOWN]) + more


def _choices(sample: Sample) -> Sequence[str]:
    """Candidates, or of a vocabulary the words of each class."""
    if sample.candidates is None:
        return ()
    if sample.candidates.vocab is None:
        return sample.candidates.items
    return [" or ".join(words) for words in verbaliser(sample.candidates.vocab)]
