"""Building a model: paper sizes, drawn weights, weights from files, and paths that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from instructblip.config.model import ModelConfig
from instructblip.models import llm as llm_module
from instructblip.models.checkpoint import write_trainable
from instructblip.models.instructblip import build, trainable_names
from instructblip.models.vision import VisionEncoder
from tests.conftest import composed

from .conftest import shaken, tiny_config, training_batch


@pytest.mark.parametrize(
    ("name", "width", "between", "trained"),
    [  # PAPER A.6; trained is less one feed-forward of 4,723,968
        ("vicuna7b", 4096, 188_837_376, 184_113_408),
        ("vicuna13b", 5120, 189_624_832, 184_900_864),
        ("flant5xl", 2048, 187_262_464, 182_538_496),
        ("flant5xxl", 4096, 188_837_376, 184_113_408),
    ],
)
def test_paper_sizes(name: str, width: int, between: int, trained: int) -> None:
    config = composed("train", f"experiment={name}", "paths.weights=weights").model
    config.random_init, config.init, config.vision.weights, config.llm.weights = True, None, None, None
    with torch.device("meta"):
        model = build(config, seed=0)
    sizes = {name: p.numel() for name, p in model.named_parameters() if not name.startswith(("vision.", "llm."))}
    assert model.llm.model.config.hidden_size == width
    # PAPER A.2, with the key bias of transformers
    assert sum(p.numel() for p in model.vision.parameters()) == 985_949_440
    assert sum(sizes.values()) == between
    assert sum(sizes[name] for name in trainable_names(model)) == trained
    if name.startswith("flan"):
        gate = model.llm.model.encoder.block[0].layer[1].DenseReluDense
        assert type(gate.act).__name__ == "GELUActivation" and hasattr(gate, "wi_1")
        assert not model.llm.model.config.scale_decoder_outputs  # Flan-T5 is T5 1.1


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vicuna7b", 6_738_415_616),
        ("vicuna13b", 13_015_864_320),
        ("flant5xl", 2_849_757_184),
        ("flant5xxl", 11_135_332_352),
    ],
)
def test_language_models_have_their_published_sizes(name: str, parameters: int) -> None:
    config = composed("train", f"experiment={name}", "paths.weights=weights").model.llm
    with torch.device("meta"):
        model = llm_module.language_model(replace(config, weights=None)).model
    head, words = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = head.numel() if head is words else 0  # transformers ties T5's when it draws them, not when it loads them
    # LLaMA-1 has 32,000 tokens, [PAD] is one more.
    assert sum(p.numel() for p in model.parameters()) + tied - (2 * head.size(1) if len(head) % 2 else 0) == parameters


@pytest.mark.parametrize(("name", "tokens", "width"), [("clip_vit_l", 257, 1024), ("siglip2_so400m", 256, 1152)])
def test_other_encoders_by_config(name: str, tokens: int, width: int) -> None:
    config = composed("train", "experiment=vicuna7b", f"model/vision={name}", "paths.weights=weights").model.vision
    with torch.device("meta"):
        vision = VisionEncoder(replace(config, weights=None, config=config.config | {"num_hidden_layers": 1}))
        assert vision(torch.zeros(1, 3, 224, 224)).shape == (1, tokens, width)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_the_norm_before_the_qformer_by_config(eps: float) -> None:
    """LAVIS' eps and transformers' (PAPER A.2)."""
    model = shaken(build(replace(tiny_config(), ln_vision_eps=eps), seed=0))
    x = 1e-3 * torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    by_hand = (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(model.ln_vision(x), by_hand * model.ln_vision.weight + model.ln_vision.bias)


def test_a_frozen_norm_is_not_trained() -> None:
    between = set(trainable_names(build(tiny_config(), seed=0)))
    frozen = set(trainable_names(build(replace(tiny_config(), freeze_ln_vision=True), seed=0)))
    assert between - frozen == {"ln_vision.weight", "ln_vision.bias"} and frozen < between


def test_the_language_model_may_drop_out_while_training() -> None:
    """LAVIS leaves T5 in training mode; off by default, and never while evaluating or in the vision encoder."""
    batch, config = training_batch("t5"), tiny_config("t5", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.llm.config["dropout_rate"] = 0.3
    still, dropping = (shaken(build(replace(config, llm_train_mode=on), seed=0)) for on in (False, True))
    calm = still(**batch)
    assert torch.equal(dropping(**batch), calm) and torch.equal(still.train()(**batch), calm)
    torch.manual_seed(0)
    assert not torch.allclose(dropping.train()(**batch), calm, atol=1e-3)
    assert dropping.llm.training and not dropping.vision.training and not still.llm.training
    assert trainable_names(dropping) == trainable_names(still)


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


@pytest.mark.parametrize("queries", [2, 8, 11])
def test_other_queries_than_the_weights_have_are_the_first_of_them_and_drawn_ones(queries: int, tmp_path: Path) -> None:
    config = tiny_config()
    own = build(config, seed=0)
    write_trainable(own, tmp_path / "w.safetensors")
    learnt = own.query_tokens.size(1)
    other = replace(
        config,
        qformer=replace(config.qformer, num_query_tokens=queries),
        starts={"mine": str(tmp_path / "w.safetensors")},
    )
    if queries != learnt:
        with pytest.raises(ValueError, match="query_tokens"):
            build(replace(other, init="mine"), seed=0)
    model = build(replace(other, init="mine", resize_queries=True), seed=0)
    both = min(queries, learnt)
    assert model.query_tokens.shape[1] == queries
    assert torch.equal(model.query_tokens[:, :both], own.query_tokens[:, :both])
    assert not (model.query_tokens[:, both:] == 0).any()
