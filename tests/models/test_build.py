"""Building a model: paper sizes, drawn weights, weights from files, and paths that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from instructblip.config import LLMConfig, ModelConfig, QFormerConfig, VisionConfig
from instructblip.models import llm as llm_module
from instructblip.models.instructblip import InstructBlip, build, trainable_names
from instructblip.models.qformer import QFormer
from instructblip.models.vision import VisionEncoder

from .conftest import (
    shaken,
    tiny_config,
)


def test_paper_sizes() -> None:
    with torch.device("meta"):
        config = ModelConfig(
            vision=VisionConfig(type="instructblip_vision_model"),
            qformer=QFormerConfig(tokenizer=""),
            llm=LLMConfig(type="llama", config={"pad_token_id": 0, "eos_token_id": 2, "num_hidden_layers": 1}),
        )
        vision = VisionEncoder(config.vision)
        llm = llm_module.language_model(config.llm)
        model = InstructBlip(config, vision, QFormer(config.qformer, vision.width), llm)
    sizes = {name: p.numel() for name, p in model.named_parameters() if not name.startswith(("vision.", "llm."))}
    assert llm.model.config.hidden_size == 4096
    assert sum(p.numel() for p in vision.parameters()) == 985_949_440  # PAPER A.2, with the key bias of transformers
    assert sum(sizes.values()) == 188_837_376  # PAPER A.6
    assert sum(sizes[name] for name in trainable_names(model)) == 184_113_408  # less one feed-forward


def test_weights_follow_the_seed_alone(llm: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(tiny_config(llm), seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = (build(tiny_config(llm), seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    drawn = [n for n, t in first.items() if t.dim() > 1 and not torch.equal(t, other[n])]
    assert len(drawn) == sum(t.dim() > 1 for t in first.values())


def loaded_from(folder: Path, config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        random_init=False,
        init=str(folder / "between.safetensors"),
        vision=replace(config.vision, weights=str(folder / "vision.safetensors")),
        llm=replace(config.llm, weights=str(folder / "llm")),
    )


def test_weights_from_files_and_folders(llm: str, tmp_path: Path) -> None:
    config = tiny_config(llm)
    saved = shaken(build(config, seed=0))
    between = {n: t for n, t in saved.state_dict().items() if not n.startswith(("vision.", "llm."))}
    save_file(between, tmp_path / "between.safetensors")
    save_file(saved.vision.encoder.state_dict(), tmp_path / "vision.safetensors")
    saved.llm.model.save_pretrained(tmp_path / "llm")
    loaded = build(loaded_from(tmp_path, config), seed=1)
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    unaware = replace(loaded_from(tmp_path, config), qformer=replace(config.qformer, instruction_aware=False))
    assert torch.equal(build(unaware, seed=1).query_tokens, saved.query_tokens)  # the text branch is passed over
    between["stray"] = between.pop("query_tokens")
    save_file(between, tmp_path / "between.safetensors")
    with pytest.raises(ValueError, match="missing: query_tokens; unexpected: stray"):
        build(loaded_from(tmp_path, config), seed=1)


def test_every_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vision.weights=.*vision.*llm.weights=.*llm.*model.init="):
        build(loaded_from(tmp_path, tiny_config()), seed=0)
