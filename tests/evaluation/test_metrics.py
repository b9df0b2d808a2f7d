from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.evaluation.answers import VARIANTS
from instructblip.evaluation.metrics import METRICS, metric, multiple_choice, vqa_accuracy
from instructblip.evaluation.predictions import Prediction
from instructblip.protocols import Mode

GOLDEN_NAMES = {
    "official_2021": "official_2021",
    "official_2017": "official_2017_lavis",
    "evalai": "evalai_mmf",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_vqa_accuracy(variant: str, golden: Any) -> None:
    suites = golden("vqa_accuracy")["suites"]
    cases = [case for suite in suites for case in suite["cases"] if case.get(GOLDEN_NAMES[variant]) is not None]
    assert cases
    for case in cases:
        value = vqa_accuracy(case["prediction"], case["answers"], variant)
        assert value * 100 == pytest.approx(case[GOLDEN_NAMES[variant]], abs=1e-6), case


def test_golden_vsr(golden: Any) -> None:
    (suite,) = golden("vsr")["suites"]
    values = [multiple_choice(*pair) for pair in zip(suite["logits_false_true"], suite["labels"], strict=True)]
    assert math.fsum(values) / len(values) == pytest.approx(suite["accuracy"], abs=1e-9)


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


def test_vqa_accuracy_refuses_what_it_cannot_tell() -> None:
    with pytest.raises(ValueError, match="unlabelled"):
        vqa_accuracy("dog", [], "evalai")
    with pytest.raises(ValueError, match="evalai, official_2017, official_2021"):
        vqa_accuracy("dog", ["dog"], "official_2018")


def test_multiple_choice_takes_the_first_of_equal_scores() -> None:
    assert multiple_choice([-2.0, -1.0, -1.0], 1) == 1.0
    assert multiple_choice([-2.0, -1.0, -1.0], 2) == 0.0


@pytest.mark.parametrize("at", [0, 1])
def test_multiple_choice_refuses_nan_wherever_it_stands(at: int) -> None:
    scores = [-1.0, -2.0]
    scores[at] = math.nan
    with pytest.raises(ValueError, match=rf"candidates \[{at}\] are NaN"):
        multiple_choice(scores, 0)


@pytest.mark.parametrize("gold", [-1, 2])
def test_multiple_choice_refuses_a_gold_that_is_no_candidate(gold: int) -> None:
    with pytest.raises(ValueError, match=f"gold is {gold}, but there are 2 scores"):
        multiple_choice([-1.0, -2.0], gold)


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="multiple_choice, vqa_accuracy:evalai"):
        metric("vqa_acuracy")


def test_a_recipe_metric_counts_votes_as_annotators() -> None:
    answers = (Answer("dog", 2), Answer("cat", 8))
    sample = Sample("a/b/1", "a", "b", Form.vqa, (MediaRef("coco", "1"),), answers=answers)
    assert metric("vqa_accuracy:evalai")(Prediction("a/b/1", "?", output="dog"), sample) == pytest.approx(0.6)


def test_every_shipped_protocol_has_a_metric_of_its_mode() -> None:
    protocols = [recipe.evaluation for name in recipes.names() if (recipe := recipes.load(name)).evaluation]
    assert protocols
    for protocol in protocols:
        assert protocol and protocol.metric in METRICS
        assert (protocol.mode is Mode.rank) == (protocol.metric == "multiple_choice")


def test_metrics_need_no_torch() -> None:
    code = "import sys, instructblip.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
