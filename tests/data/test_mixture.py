"""The stream is a pure function of (seed, step): shares, permutations, elasticity, and what an ablation may change."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from instructblip.choices import Draw
from instructblip.data import keyed
from instructblip.data.mixture import EvenDraw, Pictures, RandomDraw, Source, Stream, deal

SIZES = [566747, 13873136, 109765, 443757, 9009, 17056, 801579, 443757, 9009, 17056, 58000, 23000, 77000]
P = np.sqrt(SIZES) / np.sqrt(SIZES).sum()  # the paper's 13 held-in sets (PAPER D.4)
SOURCES = [Source("a", 10, 3, 0.2), Source("b", 7, 5, 0.5), Source("c", 100, 1, 0.3)]


def stream(**changes: object) -> Stream:
    return Stream(**{"sources": SOURCES, "seed": 1, "batch_size": 12, "group_size": 4, "draw": Draw.random, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 257, 5000])
def test_a_permutation_meets_every_row_once(size: int) -> None:
    positions = np.arange(size, dtype=np.uint64)
    first, second = (keyed.permute(keyed.key("x", size, epoch), positions, size) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(size))
    if size > 10:
        assert not np.array_equal(first, second)
        assert np.abs(np.corrcoef(first, positions)[0, 1]) < 0.2


def test_keyed_numbers_are_uniform_and_independent() -> None:
    positions = np.arange(20_000, dtype=np.uint64)
    one, two = keyed.uniform(keyed.key("one"), positions), keyed.uniform(keyed.key("two"), positions)
    for values in (one, two):
        counts = np.histogram(values, bins=20, range=(0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 44  # chi-square, 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03 and abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03


def test_these_numbers_never_change() -> None:
    """The stream of a published run must be the same on every machine and in every later version."""
    assert keyed.mix(keyed.key("a", 1), np.arange(3, dtype=np.uint64)).tolist() == PINNED
    assert [pick.row for pick in stream().step(5)] == [8, 0, 1, 0, 0, 5, 6, 4, 2, 3, 6, 1]


PINNED = [6243072105124580214, 13505786133658847519, 5589039885956662379]


def test_every_epoch_of_a_dataset_meets_every_row_once() -> None:
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number in range(40):
        for pick in stream().step(number):
            seen[pick.source].append(pick.row)
    for source, rows in seen.items():
        size = SOURCES[source].rows
        for epoch in range(len(rows) // size):
            assert sorted(rows[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_groups_are_of_one_dataset() -> None:
    picks = [pick for number in range(20) for pick in stream().step(number)]
    groups = [picks[at : at + 4] for at in range(0, len(picks), 4)]
    assert all(len({pick.source for pick in group}) == 1 for group in groups)
    assert len({pick.source for pick in picks}) == 3


def test_a_step_does_not_depend_on_what_was_asked_before() -> None:
    forwards = [stream().step(number) for number in range(30)]
    one = stream()
    assert [one.step(number) for number in reversed(range(30))] == forwards[::-1]
    assert forwards[3] != [stream(seed=2).step(number) for number in range(30)][3]


def test_random_shares_come_out_as_p() -> None:
    groups = 20_000
    counts = RandomDraw(P, 3).counts_before(groups)
    assert counts.sum() == groups and (np.abs(counts - P * groups) < 4 * np.sqrt(P * (1 - P) * groups)).all()


@pytest.mark.parametrize("seed", range(40))
def test_even_shares_are_never_off_by_more_than_one_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.maximum(rng.dirichlet(np.full(rng.integers(2, 40), rng.choice([0.1, 0.3, 1, 5]))), 1e-4) if seed else P
    p /= p.sum()
    drawn = EvenDraw(p).datasets(0, 3000)
    counts = np.cumsum(np.eye(len(p))[drawn], axis=0)  # (groups, D)
    assert np.abs(counts - p * np.arange(1, 3001)[:, None]).max() < 1


@pytest.mark.parametrize("draw", [RandomDraw(P, 3), EvenDraw(P)])
def test_counting_agrees_with_drawing(draw: RandomDraw | EvenDraw) -> None:
    drawn = np.concatenate([draw.datasets(first, first + 7) for first in range(0, 700, 7)])
    for group in (0, 1, 13, 699, 50):
        assert np.array_equal(draw.counts_before(group), np.bincount(drawn[:group], minlength=len(P)))


def test_leaving_a_dataset_out_does_not_change_what_another_gives() -> None:
    both = stream(sources=[Source("a", 10, 3, 0.5), Source("b", 7, 5, 0.5)], group_size=1)
    alone = stream(sources=[Source("b", 7, 5, 1.0)], group_size=1)
    mixed = [pick for number in range(20) for pick in both.step(number) if pick.source == 1]
    single = [pick for number in range(20) for pick in alone.step(number)]
    facts = [[(pick.row, pick.template, pick.answer, pick.augmentation) for pick in picks] for picks in (mixed, single)]
    assert facts[0] == facts[1][: len(facts[0])] and len(facts[0]) > 50


def test_drawn_is_what_the_steps_took() -> None:
    taken = Counter(pick.source for number in range(11) for pick in stream().step(number))
    assert stream().drawn(11).tolist() == [taken[0], taken[1], taken[2]]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=12 is not a multiple of group_size=5"):
        stream(group_size=5)
    with pytest.raises(ValueError, match="no training rows in empty"):
        stream(sources=[Source("empty", 0, 1, 1.0)])


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 24, 64])
@pytest.mark.parametrize("micro", [1, 2, 5, 16])
def test_a_deal_gives_every_sample_once_and_equal_micro_batches(ranks: int, micro: int) -> None:
    costs = [int(value) for value in np.random.default_rng(0).integers(10, 300, 40)]
    dealt = deal(costs, ranks, micro)
    assert sorted(place for rank in dealt for batch in rank for place in batch) == list(range(40))
    assert len({len(rank) for rank in dealt}) == 1, "the same number of micro-batches on every rank"
    assert all(len(batch) <= micro and batch == sorted(batch) for rank in dealt for batch in rank)


def test_dealing_samples_leaves_the_slowest_rank_little_behind() -> None:
    """Groups of one length class dealt whole leave a rank waiting; samples dealt do not (lengths as in a mixture)."""
    rng, whole, dealt = np.random.default_rng(0), [], []
    for _ in range(50):
        costs = np.repeat(rng.choice([20, 30, 45, 160], 16, p=[0.5, 0.3, 0.1, 0.1]), 8) + rng.integers(0, 10, 128)
        by_group = costs.reshape(16, 8).sum(1)
        by_sample = np.array(
            [sum(costs[place] for batch in rank for place in batch) for rank in deal(costs.tolist(), 16, 8)]
        )
        whole.append(by_group.max() / by_group.mean())
        dealt.append(by_sample.max() / by_sample.mean())
    assert np.mean(whole) > 1.8 and np.mean(dealt) < 1.06


def test_rows_of_like_length_stand_together() -> None:
    """Dealt so that micro-batches cost the same, each had a long row to be padded to."""
    rng, padded, read = np.random.default_rng(0), 0, 0
    for _ in range(50):
        costs = rng.choice([20, 30, 45, 160], 128, p=[0.5, 0.3, 0.1, 0.1]) + rng.integers(0, 10, 128)
        for rank in deal(costs.tolist(), 2, 8):
            padded += sum(len(batch) * max(costs[batch]) for batch in rank)
        read += int(costs.sum())
    assert padded < 1.2 * read


def by_picture(*sizes: int) -> Pictures:
    """Rows 0, 1, 2 ... of pictures with so many rows each, out of order in the table."""
    rows = np.random.default_rng(0).permutation(sum(sizes))
    return Pictures(rows, np.cumsum([0, *sizes]))


def test_samples_of_one_picture_come_in_a_row_under_one_crop() -> None:
    pictures = by_picture(1, 2, 5, 3)
    owner = {int(row): n for n in range(4) for row in pictures.order[pictures.starts[n] : pictures.starts[n + 1]]}
    one = stream(sources=[Source("a", 11, 3, 1.0, pictures)], per_image=2)
    picks = [pick for number in range(40) for pick in one.step(number)]
    pairs = list(zip(picks[::2], picks[1::2], strict=True))
    assert all(owner[a.row] == owner[b.row] and a.augmentation == b.augmentation for a, b in pairs)
    assert all(a.row != b.row or owner[a.row] == 0 for a, b in pairs), "two rows of it, if it has two"
    drawn = [owner[a.row] for a, _ in pairs]
    assert all(sorted(drawn[at : at + 4]) == [0, 1, 2, 3] for at in range(0, len(drawn), 4)), "an epoch is of pictures"
    counts = Counter(pick.row for pick in picks)
    assert set(counts) == set(range(11)), "all rows come round"
    of_the_third = [counts[int(row)] for row in pictures.order[3:8]]
    assert max(of_the_third) - min(of_the_third) <= 1
    assert [one.step(number) for number in (7, 3)] == [picks[84:96], picks[36:48]], "whatever was asked before"


def test_one_sample_a_picture_is_the_stream_as_it_was() -> None:
    assert [stream(per_image=1).step(n) for n in range(9)] == [stream().step(n) for n in range(9)]


@pytest.mark.parametrize("per_image", [3, 8, 0])
def test_a_group_holds_whole_pictures(per_image: int) -> None:
    with pytest.raises(ValueError, match=f"group_size=4 is not a multiple of per_image={per_image}"):
        stream(per_image=per_image)
