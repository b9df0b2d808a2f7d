from __future__ import annotations

import math
import subprocess
import sys

import pytest

from instructblip.evaluation.answers import VARIANTS
from instructblip.evaluation.metrics import (
    aokvqa_direct_answer,
    auroc,
    gqa_accuracy,
    ivqa_accuracy,
    multiple_choice,
    ocrvqa_accuracy,
    textvqa_accuracy,
    top1_accuracy,
    visdial,
    vizwiz_accuracy,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("prediction", "answers", "values"),  # of official_2021, official_2017, evalai
    [
        ("dog", ["dog"] * 10, (1.0, 1.0, 1.0)),
        ("dog", ["dog"] * 2 + ["cat"] * 8, (0.6, 0.6, 0.6)),  # (2 * 1/3 + 8 * 2/3) / 10
        ("two", ["2"] * 5 + ["3"] * 5, (1.0, 1.0, 1.0)),
        ("two", ["two"] * 10, (1.0, 0.0, 1.0)),  # 2017 turns the prediction alone into "2"
        ("two", ["2"] * 10, (0.0, 1.0, 1.0)),  # 2021 leaves both sides raw where all agree
        ("dog's", ["dog 's"] * 5 + ["x"] * 5, (0.0, 0.0, 1.0)),
        ("dog", ["dog"], (0.0, 0.0, 0.0)),
    ],
)
def test_vqa_accuracy(prediction: str, answers: list[str], values: tuple[float, ...]) -> None:
    assert tuple(vqa_accuracy(prediction, answers, variant) for variant in VARIANTS) == pytest.approx(values)


def test_vqa_accuracy_refuses_an_unknown_variant() -> None:
    with pytest.raises(ValueError, match="evalai, official_2017, official_2021"):
        vqa_accuracy("dog", ["dog"], "official_2018")


@pytest.mark.parametrize("metric", [textvqa_accuracy, vizwiz_accuracy, aokvqa_direct_answer, ivqa_accuracy])
def test_no_answers_is_an_unlabelled_split(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match="unlabelled"):
        metric("dog", [])


@pytest.mark.parametrize(
    ("prediction", "answers", "value"),
    [
        ("Two?", ["2"] * 10, 1.0),  # normalised on both sides, also where all agree
        ("stop's", ["stop 's"] * 3 + ["go"] * 7, 0.9),  # (3 * 2/3 + 7) / 10
        ("stop", ["STOP!"] + ["go"] * 9, 0.3),
    ],
)
def test_textvqa_accuracy(prediction: str, answers: list[str], value: float) -> None:
    assert textvqa_accuracy(prediction, answers) == pytest.approx(value)


@pytest.mark.parametrize(
    ("prediction", "answers", "value"),
    [
        ("Two", ["2"] * 10, 1.0),
        ("two", ["two"] * 10, 0.0),  # the answers are not normalised
        ("7-eleven", ["7-eleven"] * 10, 0.0),
        ("(pizza)", ["pizza"] * 2 + ["Pizza"] * 8, 0.6),
    ],
)
def test_vizwiz_accuracy(prediction: str, answers: list[str], value: float) -> None:
    assert vizwiz_accuracy(prediction, answers) == pytest.approx(value)


@pytest.mark.parametrize(
    ("prediction", "answer", "raw", "normalized"),
    [
        ("red", "red", 1.0, 1.0),
        ("Red", "red", 0.0, 1.0),
        ("the car.", "car", 0.0, 1.0),
        ("t-shirt", "t shirt", 0.0, 1.0),
        ("a-b- ", "ab", 0.0, 1.0),  # the last dash stands beside a blank only while that is kept
        ("red", "blue", 0.0, 0.0),
    ],
)
def test_gqa_accuracy(prediction: str, answer: str, raw: float, normalized: float) -> None:
    assert gqa_accuracy(prediction, answer) == raw
    assert gqa_accuracy(prediction, answer, normalize=True) == normalized


def test_exact_matches() -> None:
    assert ocrvqa_accuracy(" Jane Doe", "jane doe") == 1.0
    assert ocrvqa_accuracy("J. Doe", "j doe") == 0.0
    assert (top1_accuracy("no", "no"), top1_accuracy("No", "no")) == (1.0, 0.0)


@pytest.mark.parametrize(("votes", "direct", "ivqa"), [(0, 0.0, 0.0), (1, 1 / 3, 0.5), (2, 2 / 3, 1.0), (4, 1.0, 1.0)])
def test_votes_count_without_leaving_anyone_out(votes: int, direct: float, ivqa: float) -> None:
    answers = ["dog"] * votes + ["Dog"] * (5 - votes)  # never normalised
    assert aokvqa_direct_answer("dog", answers) == pytest.approx(direct)
    assert ivqa_accuracy("dog", answers) == ivqa


def test_multiple_choice_takes_the_first_of_equal_scores() -> None:
    assert multiple_choice([-2.0, -1.0, -1.0], 1) == 1.0
    assert multiple_choice([-2.0, -1.0, -1.0], 2) == 0.0


@pytest.mark.parametrize("metric", [multiple_choice, visdial])
@pytest.mark.parametrize("at", [0, 1])
def test_a_ranking_refuses_nan_wherever_it_stands(metric: object, at: int) -> None:
    scores = [-1.0, -2.0]
    scores[at] = math.nan
    assert callable(metric)
    with pytest.raises(ValueError, match=rf"candidates \[{at}\] are NaN"):
        metric(scores, 0)


@pytest.mark.parametrize("metric", [multiple_choice, visdial])
@pytest.mark.parametrize("gold", [-1, 2])
def test_a_ranking_refuses_a_gold_that_is_no_candidate(metric: object, gold: int) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match=f"gold is {gold}, but there are 2 scores"):
        metric([-1.0, -2.0], gold)


def test_a_round_of_visual_dialog() -> None:
    scores = [0.0, 3.0, 1.0, 2.0, -1.0, -2.0, -3.0]
    assert visdial(scores, 2) == {"mrr": 1 / 3, "r@1": 0.0, "r@5": 1.0, "r@10": 1.0, "mean_rank": 3.0, "ndcg": None}
    found = visdial(scores, 6, [0.5, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert (found["mean_rank"], found["r@5"]) == (7.0, 0.0)
    assert found["ndcg"] == 0.0  # two relevant candidates, none among the first two


def test_ndcg_is_cut_at_the_number_of_relevant_candidates() -> None:
    best = 1.0 + 0.5 / math.log2(3)
    assert visdial([3.0, 2.0, 1.0], 0, [0.5, 1.0, 0.0])["ndcg"] == pytest.approx((0.5 + 1 / math.log2(3)) / best)
    assert visdial([3.0, 1.0, 2.0], 0, [0.5, 1.0, 0.0])["ndcg"] == pytest.approx(0.5 / best)
    assert visdial([3.0, 1.0, 2.0], 0, [0.0, 0.0, 0.0])["ndcg"] is None
    with pytest.raises(ValueError, match="2 relevances for 3 candidates"):
        visdial([3.0, 1.0, 2.0], 0, [0.0, 1.0])


def test_rounds_are_averaged_and_ndcg_over_those_that_have_it() -> None:
    rounds = [[2.0, 1.0], [2.0, 1.0]]
    found = visdial(rounds, [0, 1], [None, [1.0, 0.0]])
    assert (found["mrr"], found["mean_rank"], found["ndcg"]) == (0.75, 1.5, 1.0)
    with pytest.raises(ValueError, match="2 rounds have scores, 1 a gold"):
        visdial(rounds, [0])


def test_equal_scores_rank_as_they_stand() -> None:
    assert [visdial([1.0, 2.0, 2.0, 2.0], gold)["mean_rank"] for gold in range(4)] == [4.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("labels", "scores", "value"),
    [
        ([0, 1], [0.1, 0.2], 1.0),
        ([1, 0], [0.1, 0.2], 0.0),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 1, 1], [0.3, 0.3, 0.9], 0.75),
        ([0, 1], [0.1, 0.1 + 1e-16 + 1e-17], 1.0),  # one step of a float64
        ([1, 1], [0.1, 0.2], None),
        ([0], [0.1], None),
        ([], [], None),
    ],
)
def test_auroc(labels: list[int], scores: list[float], value: float | None) -> None:
    assert auroc(labels, scores) == value


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, math.nan], r"\[1\] are NaN"),
        ([0, 2], [0.1, 0.2], r"labels \[2\]"),
        ([0, 1], [0.1], "2 labels for 1 scores"),
    ],
)
def test_auroc_refuses(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auroc(labels, scores)


def test_metrics_need_no_torch() -> None:
    code = "import sys, instructblip.evaluation.measures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
