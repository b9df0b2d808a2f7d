"""Tiny random models, ragged batches, and the oracle: `transformers`' InstructBLIP with the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, InstructBlipConfig, InstructBlipForConditionalGeneration

from instructblip.config.model import LLMConfig, ModelConfig, QFormerConfig, VisionConfig
from instructblip.models.instructblip import InstructBlip, build

torch.set_num_threads(1)  # more only wait for each other on tensors this small

VOCABULARY, IMAGE_TOKEN = 60, 59  # the oracle's placeholder; no batch holds it
PAD, EOS = 0, 2
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 7,
    "initializer_range": 0.2,
}
LLM: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.2,
    },
    "t5": {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu",
    },
}


def tiny_config(llm: str = "llama", **qformer: Any) -> ModelConfig:
    """A model of a few thousand parameters whose every weight is drawn."""
    ids = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 1}
    defaults = QFormerConfig(
        num_query_tokens=4,
        hidden_size=20,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=28,
        vocab_size=50,
        max_position_embeddings=16,
        initializer_range=0.2,
        tokenizer="",
    )
    return ModelConfig(
        name="tiny",
        random_init=True,
        ln_vision_eps=1e-6,  # the oracle's
        vision=VisionConfig(type="instructblip_vision_model", image_size=28, config=dict(VISION)),
        qformer=replace(defaults, **qformer),
        llm=LLMConfig(type=llm, tokenizer="", eos_token="</s>", pad_token="<pad>", config=LLM[llm] | ids),
    )


def shaken(model: InstructBlip) -> InstructBlip:
    """No weight is left at 0 or 1, where a forgotten bias or norm could hide. In eval mode."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def images(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (rows, 3, 28, 28), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def padded(rows: list[list[int]], fill: int = PAD, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids and mask of ragged rows."""
    width = max(map(len, rows))
    ids = [[fill] * (width - len(r)) + r if left else r + [fill] * (width - len(r)) for r in rows]
    mask = [[0] * (width - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (width - len(r)) for r in rows]
    return torch.tensor(ids), torch.tensor(mask)


INSTRUCTIONS = [[3, 7, 9, 4], [3, 8, 4], [3, 11, 12, 13, 14, 4]]
PROMPTS = [[1, 20, 21, 22, 23], [1, 30, 31], [1, 40, 41, 42]]
RESPONSES = [[5, 6, EOS], [7, EOS], [8, 9, 10, 11, EOS]]


def training_batch(llm: str, rows: range = range(3)) -> dict[str, Tensor]:
    qformer_input_ids, qformer_attention_mask = padded([INSTRUCTIONS[i] for i in rows])
    if llm == "t5":
        input_ids, attention_mask = padded([[*PROMPTS[i], EOS] for i in rows])
        labels, _ = padded([RESPONSES[i] for i in rows], fill=-100)
    else:
        input_ids, attention_mask = padded([PROMPTS[i] + RESPONSES[i] for i in rows])
        labels, _ = padded([[-100] * len(PROMPTS[i]) + RESPONSES[i] for i in rows], fill=-100)
    return {
        "pixel_values": images(3)[list(rows)],
        "qformer_input_ids": qformer_input_ids,
        "qformer_attention_mask": qformer_attention_mask,
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
    }


def prompt_batch(llm: str, rows: range = range(3)) -> dict[str, Tensor]:
    batch = training_batch(llm, rows)
    del batch["labels"]
    if llm != "t5":
        batch["input_ids"], batch["attention_mask"] = padded([PROMPTS[i] for i in rows], left=True)
    return batch


# --- shared by the tests of the whole model ----------------------------------------------------------------

TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}  # fp32, numbers of order 1 to 10, sums in another order
GREEDY: dict[str, Any] = {
    "num_beams": 1,
    "max_new_tokens": 7,
    "min_new_tokens": 1,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
}
BEAM: dict[str, Any] = GREEDY | {"num_beams": 5, "length_penalty": -1.0}
SHORT = BEAM | {"length_penalty": -4.0, "min_new_tokens": 2}
LONG = BEAM | {"length_penalty": 4.0}
CANDIDATES = [[[5], [6, 7, 8], [6, 7]], [[9, 2]], [[4], [2], [3, 4, 5, 6], [5]]]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def until_eos(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


def eager_to_end(model: InstructBlip) -> InstructBlip:
    """Makes EOS win now and then, so that answers differ in length and the length penalty has something to do."""
    with torch.no_grad():
        model.llm.model.get_output_embeddings().weight[EOS] *= 3
    return model


# --- the oracle -------------------------------------------------------------------------------------------

RENAMES = (  # in this order
    ("vision.encoder.", "vision_model."),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("llm.model.", "language_model."),
    ("qformer.word_", "qformer.embeddings.word_"),
    ("qformer.position_", "qformer.embeddings.position_"),
    ("qformer.norm.", "qformer.embeddings.layernorm."),
    ("qformer.layers.", "qformer.encoder.layer."),
    (".self_attention.", ".attention."),
    (".cross_attention.", ".crossattention."),
    ("attention.out.", "attention.output.dense."),
    ("attention.norm.", "attention.output.LayerNorm."),
    ("attention.query.", "attention.attention.query."),
    ("attention.key.", "attention.attention.key."),
    ("attention.value.", "attention.attention.value."),
    (".query_ffn.up.", ".intermediate_query.dense."),
    (".query_ffn.down.", ".output_query.dense."),
    (".query_ffn.norm.", ".output_query.LayerNorm."),
    (".text_ffn.up.", ".intermediate.dense."),
    (".text_ffn.down.", ".output.dense."),
    (".text_ffn.norm.", ".output.LayerNorm."),
)


OURS_ALONE = {"instruction_aware", "num_query_tokens", "tokenizer", "max_length"}


def oracle_name(name: str) -> str:
    if name.startswith(("llm.", "vision.")):
        return name.replace("llm.model.", "language_model.").replace("vision.encoder.", "vision_model.")
    for ours, theirs in RENAMES:
        name = name.replace(ours, theirs)
    return name


def oracle_of(model: InstructBlip, config: ModelConfig) -> InstructBlipForConditionalGeneration:
    """`transformers`' model with the same weights, in eval mode."""
    q = config.qformer
    text = AutoConfig.for_model(config.llm.type, **config.llm.config)
    text.decoder_start_token_id = PAD
    oracle = InstructBlipForConditionalGeneration(
        InstructBlipConfig(
            vision_config={**config.vision.config, "image_size": config.vision.image_size},
            qformer_config={name: value for name, value in vars(q).items() if name not in OURS_ALONE},
            text_config=text,
            num_query_tokens=q.num_query_tokens,
            image_token_index=IMAGE_TOKEN,
        )
    )
    report = oracle.load_state_dict({oracle_name(name): t for name, t in model.state_dict().items()}, strict=False)
    assert not report.unexpected_keys
    assert not report.missing_keys or not q.instruction_aware
    return oracle.eval()


def with_placeholders(batch: dict[str, Tensor], model: InstructBlip, queries: int = 4) -> dict[str, Tensor]:
    """The batch as the oracle wants it: floats, and image tokens where the queries go."""
    rows = len(batch["input_ids"])
    batch = dict(batch)
    batch["pixel_values"] = (batch["pixel_values"] / 255 - model.vision.mean) / model.vision.std
    batch["input_ids"] = torch.cat((torch.full((rows, queries), IMAGE_TOKEN), batch["input_ids"]), dim=1)
    batch["attention_mask"] = torch.cat((torch.ones(rows, queries, dtype=torch.long), batch["attention_mask"]), dim=1)
    return batch


@pytest.fixture(params=["llama", "t5"])
def llm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(llm: str) -> InstructBlip:
    return shaken(build(tiny_config(llm), seed=0))
