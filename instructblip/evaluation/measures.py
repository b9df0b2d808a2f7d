"""The metrics by the names recipes call them by, each over all predictions of a split with their Samples.

A metric that is a mean has a value per item; BLEU, METEOR and AUROC belong to the whole. All give the value of any
part too, which is how domains are told apart, and of draws for an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from instructblip.data.sample import Sample
from instructblip.evaluation import captions, metrics, reweighting
from instructblip.evaluation.answers import VARIANTS, normalize, verbaliser
from instructblip.evaluation.predictions import Prediction
from instructblip.names import lookup

T = TypeVar("T")
Pair = tuple[Prediction, Sample]
ItemMetric = Callable[[Prediction, Sample], float | None]
PARTS = ("domain", "answer_type")  # of Sample.meta, scored apart: NoCaps' domains, the kinds of VQA answers


@dataclass(frozen=True, slots=True)
class Measured:
    """A score over pairs.

    `items` are the values whose mean it is, in the order of the pairs, None for one that does not count; a score that
    is no mean has none. `over` is the score of the pairs at some places, which may repeat: a part, or a draw.
    """

    value: float | None  # None: undefined
    n: int  # pairs that count
    items: tuple[float | None, ...] | None
    over: Callable[[Sequence[int]], float | None]
    extra: dict[str, float | None]  # of each part as a split of its own, named `domain:near-domain`
    weighted: reweighting.Weighted | None = None  # None: METEOR, whose scorer is another program


Metric = Callable[[Sequence[Pair]], Measured]


def item_mean(function: ItemMetric) -> Metric:
    """The mean over the pairs for which `function` is not None. Its ValueErrors name the Sample."""

    def measure(pairs: Sequence[Pair]) -> Measured:
        items = tuple(_each(pairs, function))

        def over(places: Sequence[int]) -> float | None:
            return metrics.mean([items[at] for at in places])

        n = sum(item is not None for item in items)
        return Measured(metrics.mean(items), n, items, over, _extra(pairs, over), reweighting.mean(items))

    return measure


def auroc(pairs: Sequence[Pair]) -> Measured:
    """Of the score of class 1 less that of class 0: log-odds, in the order of softmax's probability of class 1."""
    labels = _each(pairs, lambda _, sample: _gold(sample))
    odds = _each(pairs, lambda prediction, _: _log_odds(prediction))

    def over(places: Sequence[int]) -> float | None:
        return metrics.auroc([labels[at] for at in places], [odds[at] for at in places])

    weighted = reweighting.auroc(labels, odds)
    return Measured(over(range(len(pairs))), len(pairs), None, over, _extra(pairs, over), weighted)


def caption_score(name: str) -> Metric:
    """A score of `captions.SCORERS`; a part or a draw is a corpus with document frequencies of its own."""

    def measure(pairs: Sequence[Pair]) -> Measured:
        said = {str(at): text for at, text in enumerate(_each(pairs, text_of))}
        truths = {str(at): texts for at, texts in enumerate(_each(pairs, lambda _, sample: _answers(sample)))}
        references, predictions = captions.tokenized(said, truths)

        def score(places: Sequence[int]) -> captions.CaptionScore:
            drawn = {str(draw): str(at) for draw, at in enumerate(places)}
            corpora = [{draw: tokens[at] for draw, at in drawn.items()} for tokens in (references, predictions)]
            return captions.score(name, *corpora)

        def over(places: Sequence[int]) -> float | None:
            return score(places).value

        whole = score(range(len(pairs)))
        items = tuple(whole.items) if name in captions.MEANS else None
        redraw = {"CIDEr": reweighting.cider, "Bleu_4": reweighting.bleu4}.get(name)
        weighted = reweighting.mean(whole.items) if items else None
        if redraw:
            weighted = reweighting.later(redraw, references, predictions)
        return Measured(whole.value, len(pairs), items, over, _extra(pairs, over), weighted)

    return measure


def metric(name: str) -> Metric:
    """The metric a recipe names. Raises ValueError listing those there are."""
    return lookup(name, METRICS, "metric")


def _vqa_accuracy(prediction: Prediction, sample: Sample, variant: str) -> float:
    return metrics.vqa_accuracy(text_of(prediction, sample), _answers(sample), variant)


def _against_all(function: Callable[[str, Sequence[str]], float]) -> Metric:
    return item_mean(lambda prediction, sample: function(text_of(prediction, sample), _answers(sample)))


def _against_one(function: Callable[[str, str], float]) -> Metric:
    return item_mean(lambda prediction, sample: function(text_of(prediction, sample), _answer(sample)))


def _aokvqa_direct_answer(prediction: Prediction, sample: Sample) -> float | None:
    if sample.meta.get("difficult_direct_answer"):
        return None
    return metrics.aokvqa_direct_answer(text_of(prediction, sample), _answers(sample))


def _multiple_choice(prediction: Prediction, sample: Sample) -> float:
    """Candidates of the same text are the same answer: allenai/aokvqa `eval_predictions.py` compares the texts."""
    scores, gold = _scores(prediction), _gold(sample)
    items = sample.candidates.items if sample.candidates else ()
    if not 0 <= gold < len(items):
        return metrics.multiple_choice(scores, gold)
    return max(metrics.multiple_choice(scores, at) for at, item in enumerate(items) if item == items[gold])


def _visdial(prediction: Prediction, sample: Sample, name: str) -> float | None:
    relevance = sample.candidates.relevance if sample.candidates else ()
    return metrics.visdial(_scores(prediction), _gold(sample), relevance)[name]


def _said_class(prediction: Prediction, sample: Sample) -> float:
    """1.0 when the text, but for case, outer blanks and marks, is a word of the true class (ours)."""
    if sample.candidates is None or sample.candidates.vocab is None:
        raise ValueError("this metric is of classes that words say, the Sample has none")
    return float(normalize(text_of(prediction, sample)) in verbaliser(sample.candidates.vocab)[_gold(sample)])


METRICS: dict[str, Metric] = {
    **{f"vqa_accuracy:{variant}": item_mean(partial(_vqa_accuracy, variant=variant)) for variant in VARIANTS},
    "textvqa_accuracy": _against_all(metrics.textvqa_accuracy),
    "vizwiz_accuracy": _against_all(metrics.vizwiz_accuracy),
    "gqa_accuracy": _against_one(metrics.gqa_accuracy),
    "gqa_accuracy:normalized": _against_one(partial(metrics.gqa_accuracy, normalize=True)),
    "ocrvqa_accuracy": _against_one(metrics.ocrvqa_accuracy),
    "aokvqa_direct_answer": item_mean(_aokvqa_direct_answer),
    "multiple_choice": item_mean(_multiple_choice),
    "said_class": item_mean(_said_class),
    "top1_accuracy": _against_one(metrics.top1_accuracy),
    "ivqa_accuracy": _against_all(metrics.ivqa_accuracy),
    **{f"visdial:{name}": item_mean(partial(_visdial, name=name)) for name in metrics.VISDIAL},
    "auroc": auroc,
    "cider": caption_score("CIDEr"),
    "bleu4": caption_score("Bleu_4"),
    "rouge_l": caption_score("ROUGE_L"),
    "meteor": caption_score("METEOR"),
}
CAPTION_METRICS = ("cider", "bleu4", "rouge_l", "meteor")  # those that need the extra `captions`
LOWER_IS_BETTER = ("visdial:mean_rank",)


def _extra(pairs: Sequence[Pair], over: Callable[[Sequence[int]], float | None]) -> dict[str, float | None]:
    parts: dict[str, list[int]] = {}
    for at, (_, sample) in enumerate(pairs):
        for key in PARTS:
            if key in sample.meta:
                parts.setdefault(f"{key}:{sample.meta[key]}", []).append(at)
    return {name: over(parts[name]) for name in sorted(parts)}


def _each(pairs: Sequence[Pair], function: Callable[[Prediction, Sample], T]) -> list[T]:
    """`function` of every pair. Raises ValueError naming the Sample it fails for."""
    values = []
    for prediction, sample in pairs:
        try:
            values.append(function(prediction, sample))
        except ValueError as error:
            raise ValueError(f"{sample.uid} cannot be scored: {error}") from error
    return values


def text_of(prediction: Prediction, sample: Sample) -> str:
    """What was generated, or of ranked candidates the best."""
    if prediction.output is not None:
        return prediction.output
    items = sample.candidates.items if sample.candidates else ()
    scores = _scores(prediction)
    if len(items) != len(scores):
        raise ValueError(f"this metric needs a text; the prediction has scores of {len(scores)} nameless candidates")
    return items[metrics.argmax(scores)]


def _scores(prediction: Prediction) -> list[float]:
    if prediction.scores is None:
        raise ValueError("this metric needs scores, the prediction has a text")
    metrics.require_numbers(prediction.scores)
    return prediction.scores


def _log_odds(prediction: Prediction) -> float:
    scores = _scores(prediction)
    if len(scores) != 2:
        raise ValueError(f"AUROC is of two classes, the prediction has {len(scores)} scores")
    return scores[1] - scores[0]


def _gold(sample: Sample) -> int:
    if sample.gold is None:
        raise ValueError("no gold candidate is known: the split is unlabelled")
    return sample.gold


def _answers(sample: Sample) -> list[str]:
    """One string an annotator, in the form the official scorer reads (OKVQA's is stemmed)."""
    if not sample.answers:
        raise ValueError("there are no answers: the split is unlabelled")
    return [answer.text_alt or answer.text for answer in sample.answers for _ in range(answer.votes)]


def _answer(sample: Sample) -> str:
    if len(texts := set(_answers(sample))) != 1:
        raise ValueError(f"this metric is of one true answer, the Sample has {len(texts)}")
    return texts.pop()
