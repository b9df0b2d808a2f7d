"""The loss of a step does not depend on its split, and a wrong average is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from instructblip.choices import Precision, Reduction
from instructblip.config.training import TrainConfig, TrainerConfig
from instructblip.training.selfcheck import TOLERANCES, Case, difference, forked, measured, selfcheck

EXACT = [Case(reduction, Precision.fp32) for reduction in Reduction]
CPU = TrainerConfig(accelerator="cpu")


def test_two_processes_equal_one_that_accumulates_for_every_reduction() -> None:
    for one, other in forked(CPU, EXACT, 2, planted=False):
        assert max(difference(one, other)) < 1e-12
        assert one["value"].shape == (3,) and max(map(abs, one["value"].tolist())) > 1
        moved = [name for name in one if name.startswith("gradient.") and one[name].any()]
        assert len(moved) > 0.8 * sum(name.startswith("weight.") for name in one)


@pytest.mark.parametrize("case", [*EXACT, Case(Reduction.group, Precision.bf16)], ids=str)
def test_a_mean_of_means_is_another_step(case: Case) -> None:
    differences = difference(measured(CPU, case, 8, planted=False), measured(CPU, case, 8, planted=True))
    assert all(found > limit for found, limit in zip(differences, TOLERANCES[case.precision], strict=True))


def test_an_unknown_word_is_refused(tiny: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ValueError, match=r"unknown selfcheck 'plantet'; did you mean 'planted'\?"):
        selfcheck(tiny("selfcheck=plantet"))
