"""The whole model against `transformers`' InstructBLIP with the same weights.

Tolerance 1e-5: both compute in fp32 from the same weights, with numbers of order 1 to 10, and differ only in the order
of sums (logits of some or all positions, padding on another side); the largest difference measured is 1.5e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructblip.models.instructblip import InstructBlip, build

from .conftest import (
    IMAGE_TOKEN,
    TOLERANCE,
    close,
    oracle_name,
    oracle_of,
    shaken,
    tiny_config,
    training_batch,
    with_placeholders,
)


def oracle_labels(batch: dict[str, Tensor], llm: str) -> Tensor:
    labels = batch["labels"]
    return labels if llm == "t5" else torch.cat((torch.full((len(labels), 4), -100), labels), dim=1)


def oracle_nll(logits: Tensor, labels: Tensor, llm: str) -> Tensor:
    """Per-token losses of the oracle's logits, laid out as ours."""
    if llm != "t5":
        logits = logits[:, -labels.size(1) - 1 : -1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def test_features_equal_the_oracles(llm: str, model: InstructBlip) -> None:
    batch = training_batch(llm)
    pixels = with_placeholders(batch, model)["pixel_values"]
    asked = batch["qformer_input_ids"], batch["qformer_attention_mask"]
    theirs = oracle_of(model, tiny_config(llm)).get_image_features(pixels, *asked)
    seen = model.ln_vision(model.vision(batch["pixel_values"]))
    close(seen, theirs.vision_outputs.last_hidden_state)
    close(model.qformer(model.query_tokens, seen, *asked), theirs.qformer_outputs.last_hidden_state[:, :4])
    close(model.query_embeds(batch["pixel_values"], *asked), theirs.pooler_output)


def test_instruction_unaware_queries_equal_the_oracles(llm: str) -> None:
    """BLIP-2's Q-Former is the oracle's without text."""
    config = tiny_config(llm, instruction_aware=False)
    model = shaken(build(config, seed=0))
    batch = training_batch(llm)
    seen = model.ln_vision(model.vision(batch["pixel_values"]))
    ours = model.qformer(model.query_tokens, seen, batch["qformer_input_ids"], batch["qformer_attention_mask"])
    oracle = oracle_of(model, config).qformer
    theirs = oracle(None, query_embeds=model.query_tokens.expand(3, -1, -1), encoder_hidden_states=seen)
    close(ours, theirs.last_hidden_state)


def test_loss_and_gradients_equal_the_oracles(llm: str, model: InstructBlip) -> None:
    batch, oracle = training_batch(llm), oracle_of(model, tiny_config(llm))
    labels = batch["labels"]
    asked = with_placeholders(batch, model) | {"labels": oracle_labels(batch, llm)}
    theirs = oracle(**asked)
    ours = model(**batch)
    close(ours, oracle_nll(theirs.logits, labels, llm))
    mean = ours.sum() / (labels != -100).sum()
    close(mean, theirs.loss)
    mean.backward()
    theirs.loss.backward()
    expected = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[oracle_name(name)].grad, **TOLERANCE, msg=name)
    last = "qformer.layers.2.text_ffn."
    assert not any(expected[oracle_name(n)].grad.any() for n, _ in model.named_parameters() if n.startswith(last))


def test_the_placeholder_is_the_oracles_alone(llm: str) -> None:
    assert not (training_batch(llm)["input_ids"] == IMAGE_TOKEN).any()
