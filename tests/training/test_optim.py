"""The published schedule and LAVIS' decay groups."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from instructblip.choices import Schedule
from instructblip.config.training import OptimConfig
from instructblip.training.optim import clip, learning_rate, optimizer


def test_the_papers_schedule() -> None:
    config = OptimConfig()
    assert learning_rate(0, 60_000, config) == pytest.approx(1e-8)
    assert learning_rate(500, 60_000, config) == pytest.approx((1e-8 + 1e-5) / 2)
    assert learning_rate(1000, 60_000, config) == pytest.approx(1e-5)
    assert learning_rate(30_500, 60_000, config) == pytest.approx(0.5e-5)
    assert learning_rate(59_999, 60_000, config) < 1e-13
    rates = [learning_rate(step, 60_000, config) for step in range(0, 60_000, 97)]
    assert max(rates) <= 1e-5 and all(math.isfinite(rate) for rate in rates)


def test_lavis_schedule_is_constant_within_an_inner_epoch() -> None:
    """PAPER C.2: 20 inner epochs of 3,000 steps; the published values."""
    config = OptimConfig(schedule=Schedule.lavis)
    published = {1: 9.94e-6, 2: 9.76e-6, 10: 5.0e-6, 19: 6.2e-8}
    for epoch, rate in published.items():
        first, last = (learning_rate(step, 60_000, config) for step in (3000 * epoch, 3000 * epoch + 2999))
        assert first == last == pytest.approx(rate, rel=1e-2)
    assert learning_rate(0, 60_000, config) == pytest.approx(1e-8)
    assert learning_rate(500, 60_000, config) == pytest.approx((1e-8 + 1e-5) / 2)
    assert learning_rate(1000, 60_000, config) == learning_rate(2999, 60_000, config) == 1e-5
    assert learning_rate(0, 60_000, OptimConfig(schedule=Schedule.lavis, warmup_steps=0)) == 1e-5


@pytest.mark.parametrize(("steps", "warmup_steps"), [(61_000, 1000), (60_000, 3001)])
def test_lavis_schedule_refuses_what_its_inner_epochs_do_not_fit(steps: int, warmup_steps: int) -> None:
    with pytest.raises(ValueError, match=r"multiple of optim\.inner_epoch=3000"):
        learning_rate(0, steps, OptimConfig(schedule=Schedule.lavis, warmup_steps=warmup_steps))


def test_decay_is_for_matrices_embeddings_and_queries() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "embedding": nn.Embedding(3, 2)})
    model.register_parameter("query_tokens", nn.Parameter(torch.zeros(1, 4, 2)))
    model["linear"].weight.requires_grad_(False)
    decayed, plain = by_decay(optimizer(model.named_parameters(), OptimConfig()).param_groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"embedding.weight", "query_tokens"}
    assert {names[id(p)] for p in plain["params"]} == {"linear.bias", "norm.weight", "norm.bias"}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert decayed["betas"] == (0.9, 0.999)


def by_decay(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(groups, key=lambda group: -float(group["weight_decay"]))


def test_the_rate_of_a_layer_is_scaled_by_its_name() -> None:
    model = nn.ModuleDict({"q": nn.Linear(2, 2, bias=False), "k": nn.Linear(2, 2, bias=False)})
    groups = optimizer(model.named_parameters(), OptimConfig(lr_scale={"q": 0.25})).param_groups
    assert {group["lr_scale"]: group["params"] for group in groups} == {
        0.25: [model["q"].weight], 1.0: [model["k"].weight]
    }  # fmt: skip
    model["q"].requires_grad_(False)
    with pytest.raises(ValueError, match=r"lr_scale names \['q'\], and nothing that learns is called so: \['k'\]"):
        optimizer(model.named_parameters(), OptimConfig(lr_scale={"q": 0.25}))


def test_the_norm_of_all_gradients_and_their_clipping() -> None:
    models = [nn.Linear(4, 3), nn.Linear(4, 3)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        (model(torch.ones(2, 4)) ** 2).sum().backward()
    expected = nn.utils.clip_grad_norm_(models[0].parameters(), 0.1)
    before = [parameter.grad.clone() for parameter in models[1].parameters() if parameter.grad is not None]
    assert torch.equal(clip(models[1].parameters(), None), clip(models[1].parameters(), 1e9))
    assert all(torch.equal(a, b.grad) for a, b in zip(before, models[1].parameters(), strict=True))
    assert clip(models[1].parameters(), 0.1).item() == pytest.approx(expected.item())
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert one.grad is not None and other.grad is not None and torch.allclose(one.grad, other.grad)
