"""The language models alone: logits where they are needed, padding, and what a config must state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model

from instructblip.models.generation import Search
from instructblip.models.llm import CausalLM, EncoderDecoderLM, language_model

from .conftest import padded, tiny_config

OTHERS: dict[str, dict[str, Any]] = {
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
        "init_std": 0.2,
    },
    "qwen3": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "initializer_range": 0.2,
    },
}
OTHERS |= {
    "mistral": OTHERS["qwen3"] | {"sliding_window": 6},
    "qwen2": OTHERS["qwen3"] | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "gemma3_text": OTHERS["qwen3"] | {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
}
GREEDY = Search(num_beams=1, max_new_tokens=6, min_new_tokens=6, repetition_penalty=1.0, length_penalty=1.0)


def drawn(kind: str) -> CausalLM | EncoderDecoderLM:
    config = tiny_config("llama" if kind in OTHERS else kind).llm
    if kind in OTHERS:
        ids = {name: config.config[name] for name in ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")}
        config = replace(config, type=kind, config=OTHERS[kind] | ids)
    torch.manual_seed(0)
    return language_model(config).eval()


def inputs(llm: Any, rows: list[list[int]], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = padded(rows, left=left)
    return llm.model.get_input_embeddings()(ids), mask


@pytest.mark.parametrize("kind", ["llama", "opt", "qwen3"])
def test_logits_only_where_a_target_is_predicted(kind: str) -> None:
    llm = drawn(kind)
    seen: list[int] = []
    llm.model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape[:-1].numel()))
    labels = torch.tensor([[-100, 5, 6], [7, -100, -100]])
    nll = llm.token_nll(*inputs(llm, [[1, 20, 4, 5, 6], [1, 20, 7]]), labels)
    assert seen == [3]
    assert (nll != 0).tolist() == (labels != -100).tolist()


@pytest.mark.parametrize("kind", [*OTHERS, "llama", "t5"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padding_of_a_prompt_changes_nothing(kind: str, left: bool) -> None:
    llm, search = drawn(kind), replace(GREEDY, num_beams=3, repetition_penalty=1.5, repetition_scope="all")
    rows = [[1, 20, 21, 22, 23, 24, 25], [1, 30], [1]]
    together = llm.generate(*inputs(llm, rows, left), padded(rows, fill=-100, left=left)[0], search)
    assert together.shape == (3, 6)
    for row, ids in zip(rows, together, strict=True):
        assert ids.tolist() == llm.generate(*inputs(llm, [row]), torch.tensor([row]), search)[0].tolist()


def test_exact_gelu_by_config() -> None:
    exact, approximate = (
        language_model(replace(config, config=config.config | {"dense_act_fn": name}))
        for config in [tiny_config("t5").llm]
        for name in ("gelu", "gelu_new")
    )
    assert type(exact.model.encoder.block[0].layer[1].DenseReluDense.act).__name__ == "GELUActivation"
    assert type(approximate.model.encoder.block[0].layer[1].DenseReluDense.act).__name__ == "NewGELUActivation"


@pytest.mark.parametrize("missing", ["eos_token_id", "pad_token_id"])
def test_ids_must_be_stated(missing: str) -> None:
    config = tiny_config("t5").llm
    del config.config[missing]
    with pytest.raises(ValueError, match=f"model.llm.config.{missing} is not set"):
        language_model(config)


def test_a_model_that_cannot_be_told_positions_is_refused() -> None:
    config = tiny_config().llm
    with pytest.raises(ValueError, match=r"model.llm.type=bloom takes no position_ids"):
        language_model(replace(config, type="bloom", config={**config.config, "n_layer": 1, "n_head": 2}))


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_weights_from_a_file(kind: str, tmp_path: Path) -> None:
    config, saved = tiny_config(kind).llm, drawn(kind)
    save_model(saved.model, str(tmp_path / "llm.safetensors"))
    loaded = language_model(replace(config, weights=str(tmp_path / "llm.safetensors"))).model.state_dict()
    assert loaded and all(torch.equal(t, loaded[name]) for name, t in saved.model.state_dict().items())


def test_what_a_folder_says_about_search_is_set_aside(tmp_path: Path) -> None:
    config, saved = tiny_config().llm, drawn("llama")
    saved.model.generation_config.update(no_repeat_ngram_size=1, forced_eos_token_id=9)
    saved.model.save_pretrained(tmp_path)
    loaded = language_model(replace(config, weights=str(tmp_path))).eval()
    prompt = *inputs(loaded, [[1, 20]]), torch.tensor([[1, 20]])
    assert torch.equal(loaded.generate(*prompt, GREEDY), drawn("llama").generate(*prompt, GREEDY))


def test_a_pad_token_beyond_the_folders_vocabulary_gets_a_row(tmp_path: Path) -> None:
    config = tiny_config().llm
    saved = language_model(config)
    saved.model.save_pretrained(tmp_path)
    larger = config.config | {"vocab_size": 61, "pad_token_id": 60}
    loaded = language_model(replace(config, weights=str(tmp_path), config=larger))
    rows = loaded.model.get_input_embeddings().weight
    assert rows.shape == (61, 16) and torch.equal(rows[:60], saved.model.get_input_embeddings().weight)
    assert loaded.model.generation_config.pad_token_id == 60


def test_what_is_longer_than_the_models_positions_is_refused_with_the_numbers() -> None:
    llm = drawn("llama")
    limit = llm.model.config.max_position_embeddings
    row = [1] + [20] * (limit - 4)
    ids = torch.tensor([row])
    fits = llm.generate(*inputs(llm, [row]), ids, replace(GREEDY, max_new_tokens=3, min_new_tokens=0))
    assert fits.size(1) <= 3
    with pytest.raises(ValueError, match=f"have {limit + 1} tokens, the language model {limit} positions"):
        llm.generate(*inputs(llm, [row]), ids, replace(GREEDY, max_new_tokens=4, min_new_tokens=0))
    with pytest.raises(ValueError, match=f"have {limit + 1} tokens"):
        llm.rank(*inputs(llm, [row]), [[[5], [5, 6, 7, 8]]])
    long = [1] + [20] * limit
    embeds, mask = inputs(llm, [long])
    with pytest.raises(ValueError, match=f"have {limit + 1} tokens"):
        llm.token_nll(embeds, mask, torch.tensor([long]))
