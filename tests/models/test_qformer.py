"""The Q-Former alone: what reaches what, dropout, and its limits. Parity is in test_instructblip.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from instructblip.models.qformer import QFormer

from .conftest import tiny_config

QUERIES = torch.randn(1, 4, 20, generator=torch.Generator().manual_seed(1))
IMAGE = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2))
IDS = torch.tensor([[3, 7, 9, 4], [3, 8, 4, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def qformer(**changes: Any) -> QFormer:
    torch.manual_seed(0)
    return QFormer(tiny_config(**changes).qformer, vision_width=24).eval()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max().detach())


def test_instruction_image_and_order_of_words_reach_the_queries() -> None:
    model = qformer()
    out = model(QUERIES, IMAGE, IDS, MASK)
    assert out.shape == (2, 4, 20)
    other_word, swapped = IDS.clone(), IDS.clone()
    other_word[0, 1] = 11
    swapped[0, 1], swapped[0, 2] = IDS[0, 2], IDS[0, 1]
    assert difference(model(QUERIES, IMAGE, other_word, MASK)[0], out[0]) > 1e-2
    assert difference(model(QUERIES, IMAGE, swapped, MASK)[0], out[0]) > 1e-2
    assert difference(model(QUERIES, IMAGE.flip(0), IDS, MASK), out) > 1e-2


def test_padding_reaches_nothing() -> None:
    model = qformer()
    padded = IDS.clone()
    padded[1, 3] = 30
    assert difference(model(QUERIES, IMAGE, padded, MASK), model(QUERIES, IMAGE, IDS, MASK)) == 0
    short = model(QUERIES, IMAGE[1:], IDS[1:, :3], MASK[1:, :3])
    # The same sums in another order: fp32, numbers of order 1.
    assert difference(model(QUERIES, IMAGE, IDS, MASK)[1:], short) < 1e-5


def test_queries_have_no_position() -> None:
    model = qformer()
    out = model(QUERIES, IMAGE, IDS, MASK)
    assert difference(model(QUERIES.flip(1), IMAGE, IDS, MASK), out.flip(1)) < 1e-5


@pytest.mark.parametrize(("frequency", "layers"), [(1, [0, 1, 2]), (2, [0, 2]), (3, [0])])
def test_layers_that_see_the_image(frequency: int, layers: list[int]) -> None:
    model = qformer(cross_attention_frequency=frequency)
    assert [i for i, layer in enumerate(model.layers) if layer.cross_attention is not None] == layers


def test_instruction_unaware_builds_no_text_parameters() -> None:
    model = qformer(instruction_aware=False)
    assert not any(part in name for name, _ in model.named_parameters() for part in ("text", "word_", "position_"))
    assert difference(model(QUERIES, IMAGE, IDS, MASK), model(QUERIES, IMAGE, IDS.flip(0), MASK)) == 0


@pytest.mark.parametrize("kind", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_works_in_training_only(kind: str) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = qformer(**off | {kind: 0.3})
    twice = [model(QUERIES, IMAGE, IDS, MASK) for _ in range(2)]
    assert difference(*twice) == 0
    model.train()
    assert difference(*(model(QUERIES, IMAGE, IDS, MASK) for _ in range(2))) > 1e-2


def test_weights_are_drawn_as_berts() -> None:
    torch.manual_seed(0)
    model = QFormer(tiny_config(hidden_size=128, initializer_range=0.02).qformer, vision_width=24)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            assert abs(float(parameter.detach().std()) - 0.02) < 2e-3, name
        else:
            assert bool((parameter == (1 if name.endswith("norm.weight") else 0)).all()), name


def test_too_long_an_instruction_is_refused() -> None:
    ids = torch.full((1, 17), 3)
    with pytest.raises(ValueError, match="17 tokens and the Q-Former 16 positions"):
        qformer()(QUERIES, IMAGE[:1], ids, torch.ones_like(ids))
