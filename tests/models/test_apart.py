"""Several turns of a row, read at once: each as if it were read alone."""

from __future__ import annotations

import pytest
import torch

from instructblip.data.collate import Collator, Row
from instructblip.data.templates import Example
from instructblip.models.apart import turn_mask, turn_positions
from instructblip.models.instructblip import build
from instructblip.models.tokenizers import tokenizers
from tests.conftest import composed

PIXELS = torch.zeros(3, 48, 48, dtype=torch.uint8)
CONTEXT = "large red circle top left, small blue square center."
ASKED = [("What color is the circle?", "red"), ("Where is the square?", "center"), ("Is it red?", "yes")]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_turn_is_as_likely_as_it_is_alone(attention: str) -> None:
    config = composed("train", "experiment=miniature/scratch").model
    config.llm.attn_implementation = attention
    model, collator = build(config, seed=0).eval(), Collator.of(config, tokenizers(config), False)
    together = Row(Example(*ASKED[0], "r", "r/s/0", "t", CONTEXT, tuple(ASKED[1:])), 0)
    alone = [Row(Example(f"{CONTEXT} {asked}", said, "r", "r/s/0", "t"), 0) for asked, said in ASKED]
    found, expected = (
        [model.text_nll(batch.input_ids, batch.attention_mask, batch.labels, batch.turn)[batch.labels != -100]]
        for batch in (collator.training(rows, [PIXELS]) for rows in ([together, alone[0]], alone))
        if batch.labels is not None
    )
    again = expected[0][: len(found[0]) - len(expected[0])]  # the first once more, beside the others
    torch.testing.assert_close(found[0], torch.cat((expected[0], again)), rtol=1e-4, atol=1e-5)


def test_who_sees_whom_and_from_where() -> None:
    turn, real = torch.tensor([[0, 0, 1, 1, 2, 0]]), torch.tensor([[1, 1, 1, 1, 1, 0]])
    assert turn_positions(turn, real)[0, :5].tolist() == [0, 1, 2, 3, 2]
    sees = turn_mask(turn, real, torch.float32, None)[0, 0] == 0
    assert [row.nonzero().flatten().tolist() for row in sees[:5]] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    near = turn_mask(turn, real, torch.float32, 2)[0, 0] == 0
    assert [row.nonzero().flatten().tolist() for row in near[:5]] == [[0], [0, 1], [1, 2], [2, 3], [1, 4]]
