from __future__ import annotations

from typing import Any

from rich.console import Console

from instructblip.evaluation.sensitivity import sensitivities, sensitivity_table

FACTS: dict[str, Any] = {
    "recipe": "gqa", "variant": None, "split": "testdev", "metric": "gqa_accuracy", "images": "own", "limit": None,
    "llm_limit": None, "checkpoint": "c", "manifest": "m", "n": 9,
}  # fmt: skip


def scored(profile: str, wording: str, value: float | None, **changes: Any) -> dict[str, Any]:
    return {**FACTS, "profile": profile, "wording": wording, "value": value, **changes}


def test_mean_best_worst_and_the_papers() -> None:
    scores = [scored("vqa-01", "a", 0.2), scored("vqa-02", "b", 0.6), scored("paper", "c", 0.4)]
    (found,) = sensitivities(scores)
    assert found.mean is not None and abs(found.mean - 0.4) < 1e-12
    assert (found.best, found.worst, found.paper, found.n) == ("vqa-02", "vqa-01", 0.4, 9)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(sensitivity_table([found]))
    assert "0.6000 vqa-02" in shown.get() and "0.2000 vqa-01" in shown.get()


def test_one_wording_under_two_names_counts_once_as_the_papers() -> None:
    (found,) = sensitivities([scored("vqa-05", "c", 0.4), scored("paper", "c", 0.4), scored("vqa-01", "a", 0.1)])
    assert found.values == {"paper": 0.4, "vqa-01": 0.1}


def test_a_low_rank_is_the_best_one() -> None:
    low = {"metric": "visdial:mean_rank"}
    (found,) = sensitivities([scored("paper", "a", 5.0, **low), scored("lavis", "b", 9.0, **low)])
    assert (found.best, found.worst) == ("paper", "lavis")


def test_what_differs_in_more_than_the_wording_stays_apart() -> None:
    scores = [
        scored("paper", "a", 0.1),
        scored("vqa-01", "b", 0.2, images="shuffled"),
        scored("vqa-02", "b", 0.2, limit=5),
    ]
    assert sensitivities(scores) == []


def test_undefined_scores_do_not_count() -> None:
    (found,) = sensitivities([scored("paper", "a", None), scored("vqa-01", "b", 0.2)])
    assert (found.mean, found.best, found.paper) == (0.2, "vqa-01", None)
    (found,) = sensitivities([scored("paper", "a", None), scored("vqa-01", "b", None)])
    assert (found.mean, found.best, found.worst) == (None, "", "")
