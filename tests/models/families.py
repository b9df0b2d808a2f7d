"""Each language model of `conf/model/llm`, and the one the README adds, shrunk to a few thousand weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from instructblip.config.model import LLMConfig, ModelConfig
from instructblip.data.collate import Batch, Collator, Row
from instructblip.data.templates import Example
from instructblip.models.tokenizers import tokenizers
from tests.conftest import ROOT, composed
from tests.fixtures.language_tokenizers import FAMILIES

from .conftest import images, tiny_config

DECODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.2,
    "max_position_embeddings": 256,
}  # fmt: skip
GROUPED = DECODER | {"num_key_value_heads": 1, "head_dim": 8}
SHRUNK: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "gemma": GROUPED | {"vocab_size": 600},
    "qwen3": GROUPED | {"vocab_size": 151_669},
    "opt": DECODER | {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
}
INPUTS = (
    "pixel_values", "image_index", "query_position", "input_ids", "attention_mask", "qformer_input_ids", "qformer_attention_mask"
)  # fmt: skip
TEXTS = [
    ("What color is the circle?", "red"),
    ("Question: Is there a blue star? Short answer:", "yes, two"),
    ("Caption:", "a star"),
]


def llm_config(name: str) -> LLMConfig:
    """The YAML of `conf/model/llm`, or the README's."""
    if (ROOT / "conf/model/llm" / f"{name}.yaml").is_file():
        return composed("train", "experiment=vicuna7b", f"model/llm={name}", "paths.weights=weights").model.llm
    block = re.search(r"```yaml\n( *type: gemma\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    assert f"model/llm={name}" in (ROOT / "README.md").read_text()
    written = OmegaConf.create(block[1].replace("${paths.weights}", "weights"))
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LLMConfig), written))
    assert isinstance(config, LLMConfig)
    return config


def shrunk(name: str, folder: Path) -> ModelConfig:
    """The tiny model of the tests with the named language model's policy, its tokenizer's stand-in in `folder`."""
    llm = llm_config(name)
    FAMILIES[name]().save(str(folder / f"{name}.json"))
    llm = replace(llm, tokenizer=str(folder / f"{name}.json"), weights=None, config=llm.config | SHRUNK[llm.type])
    bert = str(ROOT / "instructblip/miniature/qformer_tokenizer.json")
    qformer = {"tokenizer": bert, "vocab_size": 512, "max_position_embeddings": 64, "max_length": 64}
    return replace(tiny_config(**qformer), llm=llm)


def collator(config: ModelConfig) -> Collator:
    both = tokenizers(config)
    return Collator(both.llm, both.qformer, config.llm, config.qformer, encoder_decoder=config.llm.type == "t5")


def training_rows(collate: Collator, texts: list[tuple[str, str]]) -> Batch:
    rows = [Row(Example(a, b, "r", f"r/s/{i}", "t"), i) for i, (a, b) in enumerate(texts)]
    return collate.training(rows, list(images(len(texts))))


def inputs(batch: Batch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in INPUTS}
