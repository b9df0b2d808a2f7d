"""Scenes with two objects of one size: who may be compared, where they lie, and what a masked picture changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instructblip.evaluation.lens.scenes import ANSWERS, box, cover, pairs
from instructblip.miniature.scenes import GRID, SIDE, Object, Role

FOUND = pairs(24, seed=3)


def test_pairs_are_fair_and_unseen() -> None:
    assert len({pair.scene.identity for pair in FOUND}) == 24
    assert [pair.program for pair in FOUND[:4]] == [*ANSWERS, *ANSWERS]
    for pair in FOUND:
        assert pair.scene.role is Role.evaluation and pair.asked != pair.other and pair.asked.size == pair.other.size
        assert pair.question.answer != pair.instead.answer
        told = (
            (pair.asked.shape, pair.asked.colour)
            if pair.program == "colour-of"
            else (pair.asked.place, pair.asked.shape)
        )
        assert told[0] in pair.question.text and told[1] == pair.question.answer
        assert {pair.question.answer, pair.instead.answer} <= set(ANSWERS[pair.program])
    assert pairs(24, seed=3) == FOUND and pairs(24, seed=4) != FOUND
    with pytest.raises(ValueError, match="scenes=1: an interval needs two"):
        pairs(1, seed=3)


@pytest.mark.parametrize("side", [GRID, 2 * GRID, 16])  # patches as large as cells, smaller, and across them
@pytest.mark.parametrize("cell", range(GRID**2))
def test_a_box_covers_its_own_area(side: int, cell: int) -> None:
    area = cover(box(Object("star", "red", "small", cell)), (side, side))
    assert float(area.mean()) == pytest.approx(1 / GRID**2) and float(area.min()) >= 0 and float(area.max()) <= 1
    row, column = divmod(cell, GRID)
    centre = area[(2 * row + 1) * side // (2 * GRID), (2 * column + 1) * side // (2 * GRID)]
    assert float(centre) == 1
    if side % GRID == 0:
        assert sorted(set(area.flatten().tolist())) == pytest.approx([0, 1])
        assert int(area.sum()) == (side // GRID) ** 2


def test_an_object_is_painted_over_and_nothing_else() -> None:
    for pair in FOUND[:6]:
        whole, without = (np.asarray(each).astype(int) for each in (pair.picture(), pair.picture(without=pair.asked)))
        inside = cover(box(pair.asked), (SIDE, SIDE)).numpy() == 1
        changed = np.abs(whole - without).max(-1)
        assert changed[inside].max() > 60 and changed[~inside].max() <= 4  # what JPEG does at the edge
        assert without[inside].std(0).max() < 3 < whole[inside].std(0).max()


def test_cells_do_not_overlap() -> None:
    every = [cover(box(Object("star", "red", "small", cell)), (16, 16)) for cell in range(GRID**2)]
    torch.testing.assert_close(sum(every), torch.ones(16, 16))
