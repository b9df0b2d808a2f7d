"""The loss of a step: its weights, and that no split into ranks and micro-batches changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from instructblip.choices import Reduction
from instructblip.data.collate import Batch
from instructblip.training.loss import weigh

TARGETS = [3, 1, 5, 2, 8, 1, 1, 4]  # of eight samples in two groups
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def batch(samples: list[int], filler: bool = False) -> Batch:
    weight = torch.zeros(len(samples) + filler, 9, dtype=torch.float64)
    for row, sample in enumerate(samples):
        weight[row, : TARGETS[sample]] = 1
    blank = torch.zeros(0)
    group = torch.cat([GROUPS[samples], torch.zeros(int(filler), dtype=torch.long)])
    return Batch(blank, blank, blank, blank, blank, blank, None, weight, blank, group, blank, ())


def split(parts: list[list[Batch]], reduction: Reduction) -> dict[int, Tensor]:
    """Final weight of each sample's tokens, when rank r holds `parts[r]`."""
    totals = [local_counts(batches, reduction) for batches in parts]
    summed = torch.stack(totals).sum(0)
    return [weigh(batches, 2, reduction, lambda _: summed) for batches in parts]  # type: ignore[return-value]


def local_counts(batches: list[Batch], reduction: Reduction) -> Tensor:
    seen: list[Tensor] = []

    def keep(counts: Tensor) -> Tensor:
        seen.append(counts)
        return counts + 1  # any sum that is not empty

    weigh(batches, 2, reduction, keep)
    return seen[0]


@pytest.mark.parametrize("reduction", list(Reduction))
def test_weights_sum_to_one_and_do_not_depend_on_the_split(reduction: Reduction) -> None:
    whole = weigh([batch(list(range(8)))], 2, reduction, lambda counts: counts)[0].loss_weight
    assert whole is not None and whole.sum().item() == pytest.approx(1, abs=1e-12)
    layouts = [
        [[batch([0, 1]), batch([2, 3])], [batch([4, 5]), batch([6, 7])]],
        [[batch([7, 0, 4])], [batch([1])], [batch([6, 5, 2, 3], filler=True)]],
        [[batch([sample]) for sample in range(8)]],
    ]
    orders = [[[0, 1], [2, 3], [4, 5], [6, 7]], [[7, 0, 4], [1], [6, 5, 2, 3]], [[sample] for sample in range(8)]]
    for layout, order in zip(layouts, orders, strict=True):
        weighed = [one for rank in split(layout, reduction) for one in rank]
        for micro, samples in zip(weighed, order, strict=True):
            for row, sample in enumerate(samples):
                assert torch.allclose(micro.loss_weight[row], whole[sample], atol=1e-14)
        assert sum(micro.loss_weight.sum().item() for micro in weighed) == pytest.approx(1, abs=1e-12)


def test_what_each_reduction_means() -> None:
    nll = torch.zeros(8, 9, dtype=torch.float64)
    for sample, count in enumerate(TARGETS):
        nll[sample, :count] = sample + 1
    values = {}
    for reduction in Reduction:
        (weighed,) = weigh([batch(list(range(8)))], 2, reduction, lambda counts: counts)
        values[reduction] = (nll * weighed.loss_weight).sum().item()
    means = [
        sum(t * (s + 1) for s, t in part) / sum(t for _, t in part)
        for part in (list(enumerate(TARGETS))[:4], list(enumerate(TARGETS))[4:])
    ]
    assert values[Reduction.group] == pytest.approx(sum(means) / 2)
    assert values[Reduction.token] == pytest.approx(sum(t * (s + 1) for s, t in enumerate(TARGETS)) / sum(TARGETS))
    assert values[Reduction.sample] == pytest.approx(4.5)


def test_a_group_whose_pictures_were_all_unreadable_takes_no_share() -> None:
    half = batch([0, 1, 2, 3])
    for reduction in Reduction:
        (weighed,) = weigh([half], 2, reduction, lambda counts: counts)
        assert weighed.loss_weight is not None and weighed.loss_weight.sum().item() == pytest.approx(1)


def test_a_step_without_targets_is_an_error() -> None:
    empty = replace(batch([0]), loss_weight=torch.zeros(1, 9))
    with pytest.raises(ValueError, match="without any target token"):
        weigh([empty], 2, Reduction.group, lambda counts: counts)
