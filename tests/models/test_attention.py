"""Where the queries look: the same numbers as the forward pass used, and as `transformers` gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instructblip.models.attention import Attended, attended, watched
from instructblip.models.instructblip import InstructBlip, build

from .conftest import close, oracle_of, shaken, tiny_config, training_batch

GRID = (4, 4)  # pictures of 28 pixels, patches of 7


def seen_by(model: InstructBlip, llm: str) -> tuple[dict[int, torch.Tensor], dict[str, Any]]:
    batch = training_batch(llm)
    asked = {name: batch[name] for name in ("pixel_values", "qformer_input_ids", "qformer_attention_mask")}
    with torch.no_grad(), watched(model.qformer) as seen:
        model.query_embeds(**asked)
    return seen, asked


def test_weights_are_the_oracles(llm: str, model: InstructBlip) -> None:
    seen, asked = seen_by(model, llm)
    oracle = oracle_of(model, tiny_config(llm)).qformer
    oracle.set_attn_implementation("eager")
    image = model.encode_images(asked["pixel_values"])
    texts = torch.nn.functional.pad(asked["qformer_attention_mask"], (4, 0), value=1)
    theirs = oracle(
        asked["qformer_input_ids"], attention_mask=texts, query_embeds=model.query_tokens.expand(3, -1, -1),
        encoder_hidden_states=image, output_attentions=True,
    ).cross_attentions  # fmt: skip
    found = [each for each in theirs if each is not None]
    assert sorted(seen) == [0, 2] and len(found) == 2
    for number, expected in zip(sorted(seen), found, strict=True):
        close(seen[number], expected.mean(1))


def test_the_layers_output_follows_from_the_weights(model: InstructBlip, llm: str) -> None:
    layer = model.qformer.layers[2].cross_attention
    states, image = torch.randn(2, 4, 20), torch.randn(2, 17, 24)
    weights = layer.weights(states, image)  # (B, H, Q, P)
    read = (weights @ layer._split_heads(layer.value(image))).transpose(1, 2).flatten(2)
    close(layer.norm(states + layer.out(read)), layer(states, image))


def test_watching_changes_nothing_and_ends(model: InstructBlip, llm: str) -> None:
    batch = training_batch(llm)
    with torch.no_grad():
        before = model(**batch)
        with watched(model.qformer) as seen:
            during = model(**batch)
        kept = dict(seen)
        model(**batch | {"qformer_input_ids": batch["qformer_input_ids"].flip(0)})
    assert torch.equal(before, during) and all(seen[number] is kept[number] for number in kept)


def test_rows_sum_to_one_and_the_map_leaves_cls_out(model: InstructBlip, llm: str) -> None:
    seen, _ = seen_by(model, llm)
    row = attended(seen, model.vision.grid, row=1)
    assert row.layers == (0, 2) and row.maps.shape == (2, 4, *GRID) and model.vision.grid == GRID
    close(row.weights.sum(-1), torch.ones(2, 4))
    close(row.maps.sum((-1, -2)) + row.cls_share, torch.ones(2, 4))
    assert torch.equal(row.weights[..., 0], row.cls_share) and bool((row.cls_share > 0).all())


def test_patches_lie_row_by_row() -> None:
    weights = torch.zeros(1, 1, 7)
    weights[0, 0, 1 + 2 * 1 + 0] = 1.0  # behind CLS, row 1, column 0 of 3 x 2
    planted = Attended(weights, (0,), (3, 2))
    assert planted.maps[0, 0].nonzero().tolist() == [[1, 0]] and planted.cls_share.item() == 0
    without_cls = Attended(weights[..., 1:], (0,), (3, 2))
    assert torch.equal(without_cls.maps, planted.maps) and without_cls.cls_share.item() == 0


@pytest.mark.parametrize("aware", [True, False])
def test_an_unaware_model_looks_the_same_under_every_instruction(aware: bool) -> None:
    model = shaken(build(tiny_config(instruction_aware=aware), seed=0))
    batch = training_batch("llama")
    looks = []
    for ids in (batch["qformer_input_ids"], batch["qformer_input_ids"] + 1):
        with torch.no_grad(), watched(model.qformer) as seen:
            model.query_embeds(batch["pixel_values"], ids, batch["qformer_attention_mask"])
        looks.append(attended(seen, model.vision.grid).weights)
    assert torch.equal(*looks) is not aware
