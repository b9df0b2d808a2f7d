"""Each dataset's share of the loss and of the gradient, against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from instructblip.config.training import TrainConfig
from instructblip.models.instructblip import build
from instructblip.training.datamodule import StepData, collator, training_set
from instructblip.training.gradients import QueryGradients
from instructblip.training.objectives import objective

Tiny = Callable[..., TrainConfig]


def test_shares_are_what_autograd_says_of_each_row(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("trainer.micro_batch_size=8")
    steps = StepData(config, training_set(config), collator(config, encoder_decoder=False), first=0).steps(0, 1)
    model = build(config.model, 42).eval()
    aim = objective(config, model, ["coco_caption", "vqav2"])
    (batch,) = aim.prepare(steps.read(0).batches, lambda own: own)
    image = (batch.pixel_values, batch.qformer_input_ids, batch.qformer_attention_mask, batch.image_index)
    queries = model.query_embeds(*image).detach().requires_grad_()
    with monkeypatch.context() as patch:
        patch.setattr(model, "query_embeds", lambda *_: queries)
        aim.loss(batch, 0, lambda own: own)[0].backward()
    watched = QueryGradients(model)
    loss, figures = aim.loss(batch, 0, lambda own: own)
    loss.backward()
    assert queries.grad is not None
    rows = queries.grad.square().flatten(1).sum(1)
    mine = [batch.recipe == recipe for recipe in range(2)]
    wanted = torch.stack([*(rows[own].sum() for own in mine), rows.sum(), rows.sum()])
    torch.testing.assert_close(watched.by_recipe(batch, 2), wanted, rtol=1e-4, atol=0)
    assert not watched.by_recipe(batch, 2).any(), "they are those of one backward"

    nlls, shares, tokens, total = figures.view(4, 2)
    lengths = torch.tensor([response for _, response in batch.tokens])
    assert tokens.tolist() == [lengths[own].sum() for own in mine]
    assert shares.sum().item() == pytest.approx(loss.item()) and total.tolist() == pytest.approx([loss.item()] * 2)
    assert nlls.sum() / tokens.sum() > 3 and (nlls / tokens).std() > 0


def test_nothing_is_watched_where_no_gradient_is_taken(tiny: Tiny) -> None:
    model = build(tiny().model, 42)
    watched = QueryGradients(model)
    with torch.no_grad():
        model.language_projection(torch.zeros(2, 3, model.language_projection.in_features))
    assert watched._frames is None
