"""What the official scorers gave for made-up inputs; the cases lie beside the repository on a developer's machine."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest

from instructblip.evaluation import captions
from instructblip.evaluation.answers import VARIANTS, normalize, normalize_evalai
from instructblip.evaluation.metrics import (
    aokvqa_direct_answer,
    auroc,
    caption_scores,
    gqa_accuracy,
    ivqa_accuracy,
    multiple_choice,
    textvqa_accuracy,
    top1_accuracy,
    visdial,
    vizwiz_accuracy,
    vqa_accuracy,
)

GOLDEN_NAMES = {
    "official_2021": "official_2021",
    "official_2017": "official_2017_lavis",
    "evalai": "evalai_mmf",
}


def near(value: float | None, tolerance: float = 1e-9) -> Any:
    return value if value is None else pytest.approx(value, abs=tolerance)


def one_hot(index: int, n: int) -> list[float]:
    return [float(place == index) for place in range(n)]


def test_normalisation(golden: Any) -> None:
    cases = golden("vqa_normalize")["cases"]
    assert cases
    for case in cases:
        assert normalize(case["text"]) == case["normalized"]
        assert normalize_evalai(case["text"]) == case["mmf_evalai"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_vqa_accuracy(variant: str, golden: Any) -> None:
    name = GOLDEN_NAMES[variant]
    for suite in golden("vqa_accuracy")["suites"]:
        cases = [case for case in suite["cases"] if case.get(name) is not None]
        values = [vqa_accuracy(case["prediction"], case["answers"], variant) for case in cases]
        assert cases and [100 * value for value in values] == near([case[name] for case in cases], 1e-6)
        if report := suite.get(name):
            assert round(100 * fmean(values), 2) == report["overall"]


def test_textvqa(golden: Any) -> None:
    cases = golden("textvqa")["cases"]
    values = [textvqa_accuracy(case["pred_answer"], case["gt_answers"]) for case in cases]
    assert values == near([case["textvqa_accuracy"] for case in cases])
    assert fmean(values) == near(golden("textvqa")["overall"]["textvqa_accuracy"])


def test_vizwiz(golden: Any) -> None:
    cases = golden("vizwiz")["cases"]
    values = [100 * vizwiz_accuracy(case["prediction"], case["answers"]) for case in cases]
    assert values == near([case["accuracy"] for case in cases], 1e-6)
    assert fmean(values) == near(golden("vizwiz")["overall_accuracy"], 1e-6)


def test_gqa(golden: Any) -> None:
    (suite,) = golden("gqa")["suites"]
    said = {each["questionId"]: each["prediction"] for each in suite["predictions"]}
    kinds: dict[str, list[float]] = {"accuracy": [], "binary": [], "open": []}
    for uid, question in suite["questions"].items():
        if question["isBalanced"]:
            value = gqa_accuracy(said[uid], question["answer"])
            kinds["accuracy"].append(value)
            kinds["open" if question["types"]["structural"] == "query" else "binary"].append(value)
    for kind, values in kinds.items():
        assert 100 * fmean(values) == near(suite["scores"][kind])


def test_gqa_as_lavis_compares(golden: Any) -> None:
    cases = golden("lavis_gqa_task")["cases"]
    assert cases
    for case in cases:
        assert gqa_accuracy(case["pred"], case["gt"], normalize=True) == case["correct"], case


def test_aokvqa(golden: Any) -> None:
    (suite,) = golden("aokvqa")["suites"]
    direct, chosen = suite["direct_answer_predictions"], suite["multiple_choice_predictions"]
    values = []
    for question, expected in zip(suite["dataset"], suite["per_question"], strict=True):
        uid = question["question_id"]
        if expected["da"] is not None:
            answers = question["direct_answers"]
            values.append(aokvqa_direct_answer(direct[uid], answers) if uid in direct else 0.0)
            assert 100 * values[-1] == near(expected["da"])
        if (said := chosen.get(uid)) in (choices := question["choices"]):
            scores = one_hot(choices.index(said), len(choices))
            assert 100 * multiple_choice(scores, question["correct_choice_idx"]) == expected["mc"]
    assert 100 * fmean(values) == near(suite["da_accuracy"])


def test_scienceqa(golden: Any) -> None:
    (suite,) = golden("scienceqa")["suites"]
    problems, results = suite["problems"], suite["results"]
    tested = [uid for uid in results if problems[uid]["split"] == "test"]
    right = {
        uid: multiple_choice(one_hot(results[uid], problems[uid]["n_choices"]), problems[uid]["answer"])
        for uid in tested
    }
    with_image = [right[uid] for uid in tested if problems[uid]["image"]]
    assert f"{100 * fmean(right.values()):.2f}" == suite["scores"]["acc_average"]
    assert f"{100 * fmean(with_image):.2f}" == suite["scores"]["acc_has_image"]


def test_iconqa(golden: Any) -> None:
    (suite,) = golden("iconqa")["suites"]
    correct = {"choose_txt": 0.0, "choose_img": 0.0, "fill_in_blank": 0.0}
    for uid, problem in suite["problems"].items():
        correct[problem["ques_type"]] += top1_accuracy(str(suite["predictions"][uid]), str(problem["answer"]))
    assert correct == suite["task_correct"]


def test_vsr(golden: Any) -> None:
    (suite,) = golden("vsr")["suites"]
    values = [multiple_choice(*pair) for pair in zip(suite["logits_false_true"], suite["labels"], strict=True)]
    assert fmean(values) == near(suite["accuracy"])


def test_ivqa(golden: Any) -> None:
    (suite,) = golden("ivqa")["suites"]
    values = [ivqa_accuracy(case["top10_predictions"][0], case["answers"]) for case in suite["cases"]]
    assert values == near([case["acc"] for case in suite["cases"]])
    assert fmean(values) == near(suite["acc"])


def test_video_questions(golden: Any) -> None:
    (suite,) = golden("videoqa_top1")["suites"]
    values = [top1_accuracy(case["prediction"], case["answer"]) for case in suite["cases"]]
    assert values == [case["correct"] for case in suite["cases"]]
    assert fmean(values) == near(suite["acc"])


def test_visual_dialog(golden: Any) -> None:
    for batch in golden("visdial")["batches"]:
        rounds = [scores for dialog in batch["scores"] for scores in dialog]
        gold = [index for dialog in batch["gt_index"] for index in dialog]
        relevance: list[Sequence[float] | None] = []
        for dialog, known in zip(batch["scores"], batch["relevance_round0"], strict=True):
            relevance += [known] + [None] * (len(dialog) - 1)
        found = visdial(rounds, gold, relevance)
        official = {"mean_rank" if name == "mean" else name: value for name, value in batch["official"].items()}
        assert found == near(official | {"ndcg": batch["official_ndcg"]}, 1e-6)
        assert found["mrr"] == near(batch["mrr_float64"], 1e-12)
        ranks = [visdial(*each)["mean_rank"] for each in zip(rounds, gold, strict=True)]
        assert ranks == batch["ranks_of_gt"]


def test_ties_of_visual_dialog(golden: Any) -> None:
    for case in golden("visdial")["ties"]:
        rank = visdial([float(score) for score in case["scores"]], case["gt_index"])["mean_rank"]
        assert rank and case["optimistic_rank"] <= rank <= case["pessimistic_rank"]


def test_auroc(golden: Any) -> None:
    cases = golden("auroc")
    assert cases["cases"] and cases["undefined"]
    for case in cases["cases"] + cases["undefined"]:
        assert auroc(case["labels"], case["scores"]) == near(case["roc_auc"]), case
    for case in cases["two_logit_cases"]:
        scores = [one - zero for zero, one in case["logits"]]
        assert auroc(case["labels"], scores) == near(case["mmf_roc_auc"])


def test_caption_tokens(golden: Any) -> None:
    cases = golden("caption_tokenize")["cases"]
    assert captions.tokenize([case["text"] for case in cases]) == [case["tokens"] for case in cases]


@pytest.mark.parametrize("name", ["CIDEr", "ROUGE_L", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"])
def test_caption_scores_of_given_tokens(name: str, golden: Any) -> None:
    for corpus in golden("caption_scores")["corpora"]:
        images = corpus["images"]
        said = {str(image["image_id"]): [image["prediction_tokens"]] for image in images}
        truths = {str(image["image_id"]): image["reference_tokens"] for image in images}
        found = captions.score(name, truths, said)
        kind, _, n = name.partition("_")
        expected = [image["Bleu"][int(n) - 1] if kind == "Bleu" else image[name] for image in images]
        assert found.value == near(corpus["corpus"][name], 1e-6)
        assert found.items == near(expected, 1e-6)


def test_meteor(golden: Any) -> None:
    with captions.meteor() as scorer:  # one Java for all corpora
        for corpus in golden("caption_scores")["corpora"]:
            images = corpus["images"]
            said = {str(image["image_id"]): [image["prediction_tokens"]] for image in images}
            truths = {str(image["image_id"]): image["reference_tokens"] for image in images}
            value, items = scorer.compute_score(truths, said)
            assert value == near(corpus["corpus"]["METEOR"], 1e-4)
            assert items == near([image["METEOR"] for image in images], 1e-4)


def test_caption_scores(golden: Any) -> None:
    corpus = next(each for each in golden("caption_scores")["corpora"] if each["name"] == "some_empty_predictions")
    said = {str(image["image_id"]): image["prediction"] for image in corpus["images"]}
    truths = {str(image["image_id"]): image["references"] for image in corpus["images"]}
    assert caption_scores(said, truths) == near(corpus["corpus"], 1e-6)


def test_domains_of_nocaps(golden: Any) -> None:
    cases = golden("nocaps")
    for domain, expected in cases["per_domain_own_corpus"].items():
        images = [image for image in cases["images"] if domain in ("entire", image["domain"])]
        said = {str(image["image_id"]): image["prediction"] for image in images}
        truths = {str(image["image_id"]): image["references"] for image in images}
        references, predictions = captions.tokenized(said, truths)
        for name in set(expected) - {"METEOR"}:
            assert captions.score(name, references, predictions).value == near(expected[name], 1e-6)
