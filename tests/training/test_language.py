"""A language model is pretrained on text alone: it learns, nothing else does, and no picture is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from instructblip.config.training import TrainConfig
from instructblip.models.instructblip import build
from instructblip.training.datamodule import collator, training_set
from instructblip.training.objectives import objective, text_nll, token_nll
from instructblip.training.run import opened
from train import fit

Tiny = Callable[..., TrainConfig]
LANGUAGE = ("objective=language", "model.unfreeze=[llm]")


def test_the_language_model_learns_and_nothing_else(tiny: Tiny) -> None:
    config = tiny(*LANGUAGE, "steps=3")
    before = build(config.model, config.seed).state_dict()
    with opened(config) as run:
        fit(config, run)
    after = load_file(sorted((run / "checkpoints").glob("*/model.safetensors"))[-1])
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"llm"}


def test_it_reads_no_picture(tiny: Tiny) -> None:
    from instructblip.training.datamodule import StepData

    config = tiny(*LANGUAGE)
    model = build(config.model, config.seed)
    batch = StepData(config, training_set(config), collator(config, False)).held_back()[0]
    loss = text_nll(model, batch)
    assert loss.shape == token_nll(model, batch).shape and not torch.allclose(loss, token_nll(model, batch))
    batch.pixel_values.fill_(0)
    torch.testing.assert_close(text_nll(model, batch), loss)


def test_rows_of_several_turns_are_refused_where_the_picture_is_shown(tiny: Tiny) -> None:
    from instructblip.training.datamodule import StepData

    config = tiny(*LANGUAGE)
    batch = StepData(config, training_set(config), collator(config, False)).held_back()[0]
    with pytest.raises(ValueError, match="has `following`, which only objective=language reads"):
        token_nll(build(config.model, config.seed), replace(batch, turn=torch.ones_like(batch.input_ids)))


def test_a_frozen_language_model_is_refused(tiny: Tiny) -> None:
    config = tiny("objective=language", "model.unfreeze=[]")
    with pytest.raises(ValueError, match=r"objective=language trains the language model: set model.unfreeze=\[llm\]"):
        objective(config, build(config.model, 0), ["coco_caption"])
