"""Measures of planted attention are the planted ones; masking changes what it names; planted effects are found."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from instructblip.evaluation.lens import measuring
from instructblip.evaluation.lens.figures import INSTRUCTED, LEVELS, MAIN, NEEDED, compared, corrected, estimates, sheet
from instructblip.evaluation.lens.measuring import Measures, density, measure, prompt, replaced, tokens
from instructblip.evaluation.lens.scenes import ANSWERS, box, cover, pairs
from instructblip.inference import Assistant
from instructblip.models.attention import Attended

from .conftest import untrained

(PAIR, PLACED) = pairs(2, seed=5)


def test_the_questions_have_the_recipes_prompt() -> None:
    assert prompt(PAIR, PAIR.question.text) == f"Question: What color is the {PAIR.asked.shape}? Short answer:"
    assert prompt(PLACED, PLACED.question.text) == f"Question: What shape is in the {PLACED.asked.place}? Short answer:"


def test_density_of_planted_attention() -> None:
    area = cover(box(PAIR.asked), (6, 6))
    blind = Attended(torch.full((2, 3, 37), 1 / 37), (0, 1), (6, 6))
    assert density(blind, area).tolist() == pytest.approx([1, 1])
    weights = torch.zeros(2, 3, 37)
    weights[..., 0], weights[0, :, 1:], weights[1, :, 1:] = 0.5, 0.5 * area.flatten() / 4, 0.5 / 36
    assert density(Attended(weights, (0, 1), (6, 6)), area).tolist() == pytest.approx([9, 1])


def test_replacing_touches_the_named_patches_alone() -> None:
    own, blank, area = torch.randn(10, 5), torch.randn(10, 5), cover(box(PAIR.asked), (3, 3))
    changed, place = replaced(own, blank, area), 1 + PAIR.asked.cell
    assert torch.equal(changed[place], blank[place])
    kept = [token for token in range(10) if token != place]
    assert torch.equal(changed[kept], own[kept])
    half = replaced(own, blank, area / 2)
    torch.testing.assert_close(half[place], (own[place] + blank[place]) / 2)


@pytest.mark.parametrize("aware", [True, False])
def test_a_scene_is_measured(aware: bool) -> None:
    assistant = Assistant.of(untrained(f"model.qformer.instruction_aware={str(aware).lower()}"))
    found = measure(assistant, PAIR)
    assert (found.asked == found.instead) is not aware and len(found.asked) == 2
    with torch.inference_mode():
        (scores,) = measuring.likelihoods(
            assistant, tokens(assistant, PAIR.picture())[None], prompt(PAIR, PAIR.question.text), ANSWERS[PAIR.program]
        )
    assert found.whole == pytest.approx(float(scores[ANSWERS[PAIR.program].index(PAIR.question.answer)]), abs=1e-4)
    lost = [found.whole - each for each in (found.without_asked, found.without_other, found.painted_asked)]
    assert all(abs(each) > 1e-6 for each in lost)
    ranked = dict(assistant.rank(PAIR.picture(), prompt(PAIR, PAIR.question.text), ANSWERS[PAIR.program]))
    assert found.whole == pytest.approx(ranked[PAIR.question.answer], abs=1e-4)
    assert found.first == (max(ranked, key=ranked.__getitem__) == PAIR.question.answer)


def test_a_model_that_looks_at_what_is_asked_is_seen_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(assistant: Assistant, image: torch.Tensor, text: str) -> Attended:
        asked = PAIR.asked if PAIR.question.text in text else PAIR.other
        weights = torch.zeros(2, 8, 10)
        weights[..., 1 + asked.cell] = 1.0
        return Attended(weights, (0, 1), (3, 3))

    monkeypatch.setattr(measuring, "look", planted)
    found = measure(Assistant.of(untrained()), PAIR)
    assert found.asked == pytest.approx((9, 9)) and found.instead == (0, 0)
    assert found.other == (0, 0) and found.others[0] == pytest.approx(0)


def scenes(asked: float, instead: float, needed: float, seed: int = 0, count: int = 60) -> list[Measures]:
    """Others have 1.0; what is lost without another object is 0.2 in the mean."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (4, count))
    noise -= noise.mean(1, keepdims=True)
    return [
        Measures(
            program=tuple(ANSWERS)[at % 2], asked=(asked + a, asked + a), other=(1.0 + b, 1.0 + b), others=(1.0 + b, 1.0 + b),
            instead=(instead + a / 2, instead + a / 2), whole=-1.0, without_asked=-1.2 - needed + c, without_other=-1.2 + d,
            painted_asked=-2.0, painted_other=-2.0, first=at % 4 == 0,
        )
        for at, (a, b, c, d) in enumerate(noise.T)
    ]  # fmt: skip


def test_planted_effects_are_found_and_absent_ones_are_not() -> None:
    found = {each.name: each for each in corrected(estimates("run", scenes(3.0, 2.0, 0.5), [0, 1]))}
    planted = dict(
        zip([each.name for each in (*LEVELS, *MAIN)], [3.0, 1.0, 0.7, 0.2, 0.25, 2.0, 1.0, 0.5, 0.0], strict=True)
    )
    for name, value in planted.items():
        each = found[name]
        assert each.value == pytest.approx(value, abs=1e-9)
        assert each.low is not None and each.high is not None and each.low <= each.value <= each.high
    assert all(found[each.name].p == pytest.approx(4 * 2 / 10_001, abs=1e-3) for each in MAIN[:3])
    assert found[MAIN[3].name].p == 1 and found[LEVELS[0].name].p is None
    assert found[f"{INSTRUCTED.name}: layer 1"].value == pytest.approx(1.0) and f"{NEEDED.name}: what-at" in found
    nothing = {each.name: each for each in corrected(estimates("run", scenes(1.0, 1.0, 0.0, seed=1), [0]))}
    assert all((nothing[each.name].p or 0) > 0.05 for each in MAIN)


def test_two_runs_are_compared_scene_by_scene() -> None:
    one, two = scenes(3.0, 2.0, 0.5), scenes(3.0, 3.0, 0.5)
    two = [replace(each, instead=each.asked) for each in two]
    found = {each.name: each for each in compared(("aware", "unaware"), one, two)}
    assert found[INSTRUCTED.name].value == pytest.approx(1.0) and (found[INSTRUCTED.name].low or 0) > 0.9
    assert (found[NEEDED.name].value, found[NEEDED.name].p) == (pytest.approx(0.0), 1)
    told = [*estimates("aware", one, [0]), *estimates("unaware", two, [0]), *found.values()]
    table = sheet("T", corrected(told))
    assert table.header == ["mean over scenes (95 %)", "aware", "unaware", "aware less unaware"]
    line = next(line for line in table.lines if line[0] == INSTRUCTED.name)
    assert line[2].startswith("0.000, p 1.0000") and line[3].startswith("1.000, p 0.00")
    assert asdict(table)["lines"] == table.lines
