from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample
from instructblip.evaluation import captions
from instructblip.evaluation.measures import METRICS, Pair, metric
from instructblip.evaluation.predictions import Prediction
from instructblip.protocols import Mode

RANKED = {"multiple_choice", "auroc", *(name for name in METRICS if name.startswith("visdial"))}


def pair(said: str | list[float], *answers: str | tuple[str, int], number: int = 0, **facts: Any) -> Pair:
    """A prediction, a text or scores, and its Sample."""
    uid = f"a/b/{number}"
    given = tuple(Answer(each) if isinstance(each, str) else Answer(*each) for each in answers)
    sample = Sample(uid, "a", "b", Form.vqa, (MediaRef("coco", "1"),), answers=given, **facts)
    text, scores = (said, None) if isinstance(said, str) else (None, said)
    return Prediction(uid, "?", output=text, scores=scores), sample


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"vqa_accuracy:evalai.*multiple_choice.*vqa_accuracy:official_2017"):
        metric("vqa_acuracy:evalai")


def test_every_shipped_protocol_has_a_metric_of_its_mode() -> None:
    protocols = [recipe.evaluation for name in recipes.names() if (recipe := recipes.load(name)).evaluation]
    assert protocols
    for protocol in protocols:
        assert protocol and protocol.metric in METRICS
        assert protocol.metric == "top1_accuracy" or (protocol.mode is Mode.rank) == (protocol.metric in RANKED)


def test_votes_count_as_annotators() -> None:
    measured = metric("vqa_accuracy:evalai")([pair("dog", ("dog", 2), ("cat", 8))])
    assert measured.items == (pytest.approx(0.6),)


def test_the_form_the_official_scorer_reads_is_scored() -> None:
    said, sample = pair("pony tail")
    raw = replace(sample, answers=(Answer("ponytails", 10, text_alt="pony tail"),))
    assert metric("vqa_accuracy:official_2017")([(said, raw)]).value == 1.0


@pytest.mark.parametrize(
    ("name", "pairs", "items"),
    [
        ("textvqa_accuracy", [pair("dog.", ("Dog", 10))], (1.0,)),
        ("vizwiz_accuracy", [pair("dog.", ("Dog", 10))], (0.0,)),
        ("gqa_accuracy", [pair("Dog", "dog"), pair("dog", "dog")], (0.0, 1.0)),
        ("gqa_accuracy:normalized", [pair("Dog", "dog")], (1.0,)),
        ("ocrvqa_accuracy", [pair(" Dog", "dog")], (1.0,)),
        ("ivqa_accuracy", [pair("dog", "dog", ("cat", 4))], (0.5,)),
        ("multiple_choice", [pair([0.0, 1.0], gold=1), pair([0.0, 1.0], gold=0)], (1.0, 0.0)),
        ("visdial:r@1", [pair([0.0, 1.0], gold=1), pair([0.0, 1.0], gold=0)], (1.0, 0.0)),
        ("visdial:mean_rank", [pair([0.0, 1.0], gold=1), pair([0.0, 1.0], gold=0)], (1.0, 2.0)),
    ],
)
def test_means_over_items(name: str, pairs: list[Pair], items: tuple[float, ...]) -> None:
    measured = metric(name)(pairs)
    assert (measured.items, measured.n) == (items, len(pairs))
    assert measured.value == sum(items) / len(items)
    assert measured.over([0, 0]) == items[0]


def test_direct_answers_leave_the_difficult_questions_out() -> None:
    pairs = [
        pair("dog", ("dog", 10), meta={"difficult_direct_answer": False}),
        pair("dog", ("cat", 10), meta={"difficult_direct_answer": True}),
    ]
    measured = metric("aokvqa_direct_answer")(pairs)
    assert (measured.items, measured.n, measured.value) == ((1.0, None), 1, 1.0)
    assert metric("aokvqa_direct_answer")(pairs[1:]).value is None


def test_the_best_word_of_a_vocabulary() -> None:
    words = Candidates(items=("cat", "dog"))
    said = [pair([-1.0, -0.5], "dog", candidates=words), pair("dog", "dog"), pair([0.0, -0.5], "dog", candidates=words)]
    assert metric("top1_accuracy")(said).items == (1.0, 1.0, 0.0)


def test_candidates_of_the_same_text_are_the_same_answer() -> None:
    twice = Candidates(items=("dog", "cat", "dog"))
    pairs = [pair([0.0, -1.0, 0.0], gold=2, candidates=twice), pair([0.0, 1.0, 0.0], gold=2, candidates=twice)]
    assert metric("multiple_choice")(pairs).items == (1.0, 0.0)


def test_ndcg_is_over_the_rounds_with_relevance() -> None:
    known = Candidates(items=("a", "b"), relevance=(0.0, 1.0))
    pairs = [
        pair([1.0, 0.0], gold=0, candidates=Candidates(items=("a", "b"))),
        pair([0.0, 1.0], gold=0, candidates=known),
    ]
    assert metric("visdial:ndcg")(pairs).items == (None, 1.0)
    assert metric("visdial:mrr")(pairs).value == 0.75


def test_auroc_is_of_the_odds_and_of_the_whole() -> None:
    pairs = [pair([-9.0, -8.0], gold=0), pair([-1.0, -3.0], gold=0), pair([-5.0, -3.0], gold=1)]
    measured = metric("auroc")(pairs)  # odds 1, -2 and 2: by the score of class 1 alone the last two were equal
    assert (measured.value, measured.items, measured.n) == (1.0, None, 3)
    assert measured.over([0, 1]) is None  # one class
    assert metric("auroc")([pair([0.0, 1.0], gold=1)]).value is None


def test_parts_are_scored_apart() -> None:
    pairs = [
        pair("3", ("3", 10), meta={"answer_type": "number"}),
        pair("yes", ("no", 10), meta={"answer_type": "yes/no"}),
        pair("4", ("5", 10), meta={"answer_type": "number"}),
    ]
    assert metric("vqa_accuracy:evalai")(pairs).extra == {"answer_type:number": 0.5, "answer_type:yes/no": 0.0}


@pytest.mark.parametrize("name", ["cider", "bleu4", "rouge_l"])
def test_a_domain_is_a_corpus_of_its_own(name: str) -> None:
    texts = ["a red bus on a street", "two dogs in the snow", "a man on a horse", "a red kite in the sky"]
    said = ["a red bus in a street", "two dogs in the snow", "a horse", "the sky"]
    domains = ["in-domain", "out-domain", "in-domain", "out-domain"]
    pairs = [
        pair(caption, text, f"{text} today", number=number, meta={"domain": domain})
        for number, (caption, text, domain) in enumerate(zip(said, texts, domains, strict=True))
    ]
    measured = metric(name)(pairs)
    own = metric(name)(pairs[::2])
    assert measured.extra["domain:in-domain"] == pytest.approx(own.value)
    assert measured.value == pytest.approx(measured.over(range(4))) and measured.n == 4
    official = dict(cider="CIDEr", bleu4="Bleu_4", rouge_l="ROUGE_L")[name]
    texts_of = {str(at): [text, f"{text} today"] for at, text in enumerate(texts)}
    references, predictions = captions.tokenized({str(at): text for at, text in enumerate(said)}, texts_of)
    assert measured.value == captions.score(official, references, predictions).value
    if name == "bleu4":
        assert measured.items is None
    else:
        assert measured.items and sum(item or 0.0 for item in measured.items) / 4 == pytest.approx(measured.value)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("textvqa_accuracy", pair("dog"), "a/b/0 cannot be scored: .*unlabelled"),
        ("cider", pair("dog"), "a/b/0 cannot be scored: .*unlabelled"),
        ("textvqa_accuracy", pair([0.0], "dog"), "needs a text"),
        ("cider", pair([0.0], "dog"), "a/b/0 cannot be scored: .*needs a text"),
        ("multiple_choice", pair("dog", gold=0), "needs scores"),
        ("multiple_choice", pair([0.0, 1.0]), "unlabelled"),
        ("multiple_choice", pair([0.0, math.nan], gold=0), "NaN"),
        ("multiple_choice", pair([0.0], gold=1, candidates=Candidates(items=("a", "b"))), "there are 1 scores"),
        ("auroc", pair([0.0, 1.0]), "a/b/0 cannot be scored: .*unlabelled"),
        ("auroc", pair([0.0, 1.0, 2.0], gold=1), "3 scores"),
        ("auroc", pair([0.0, math.nan], gold=1), "a/b/0 cannot be scored: .*NaN"),
        ("gqa_accuracy", pair("dog", "dog", "cat"), "one true answer, the Sample has 2"),
    ],
)
def test_what_cannot_be_scored_is_named(name: str, wrong: Pair, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(name)([wrong])
