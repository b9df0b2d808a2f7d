"""Bytes a GPU holds while it trains: weights, gradients and optimizer exactly, activations by a formula.

The formula counts what autograd keeps for backward, layer by layer, of the classes as they are (d width, h heads times
their width, f feed-forward width, c bytes of the precision computed in, per token and layer):
    LLaMA   2 norms in fp32 (8 d), query, key, value and what attention gives (c (2 h + 2 h_kv)), gate, its activation
            and up (3 c f); a frozen map keeps no input
    T5      as that with norms of 4 + c bytes; the decoder's layers have 3 norms, and keys and values of the prompt
    Q-Former  inputs, outputs and norms of every map, since they learn
With activation checkpointing a layer of the language model keeps its input alone and one layer is computed again.
Weights held in another dtype than is computed in are cast, and the casts kept for backward: a second copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from instructblip.choices import Precision
from instructblip.models.instructblip import InstructBlip
from instructblip.training.flops import attention_width, image_tokens

RESERVED = 1.5e9  # CUDA's context, cuBLAS and what the allocator cannot use (ours, not measured)
PARTS = ("vision", "ln_vision", "query_tokens", "qformer", "language_projection", "llm")


@dataclass(frozen=True)
class Setting:
    """How a run is laid out on its GPUs."""

    strategy: str  # single, ddp or fsdp
    gpus: int
    micro_batch_size: int
    precision: Precision = Precision.bf16
    checkpointing: bool = False

    @property
    def compute(self) -> int:
        """Bytes of a value that is computed."""
        return 4 if self.precision is Precision.fp32 else 2

    @property
    def shards(self) -> int:
        return self.gpus if self.strategy == "fsdp" else 1


@dataclass(frozen=True)
class Texts:
    """Tokens of each row of a micro-batch, padding among them."""

    prompt: float
    response: float


@dataclass(frozen=True)
class Parameters:
    """Numbers of one part."""

    frozen: int
    trainable: int


def parameters(model: InstructBlip) -> dict[str, Parameters]:
    """Of each part, in the order of the forward pass; tied ones once."""
    found = dict.fromkeys(PARTS, Parameters(0, 0))
    for name, parameter in model.named_parameters():
        part, number = name.split(".")[0], parameter.numel()
        had = found[part]
        learns = parameter.requires_grad
        found[part] = Parameters(had.frozen + number * (not learns), had.trainable + number * learns)
    return found


def state(model: InstructBlip, setting: Setting, held: dict[str, torch.dtype]) -> dict[str, float]:
    """Bytes a GPU of what stays between steps. `held` are the dtypes of `vision` and `llm`."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    learnt = sum(parameter.numel() for parameter in trainable)
    counted = parameters(model)
    kept = {
        f"weights of {part}": counted[part].frozen * held[part].itemsize / setting.shards
        for part in ("vision", "llm")
        if counted[part].frozen
    }
    unread = sum(counted[part].frozen for part in PARTS if part not in held)
    return kept | {
        "weights that learn": 4.0 * (learnt + unread) / setting.shards,
        "gradients": 4.0 * learnt / setting.shards,
        # AdamW's two moments, and the step of each tensor
        "optimizer": 8.0 * learnt / setting.shards + 4.0 * len(trainable),
        "gathered or reduced": _communicated(model, setting, held, learnt),
    }


def working(model: InstructBlip, setting: Setting, held: dict[str, torch.dtype], texts: Texts) -> dict[str, float]:
    """Bytes a GPU at the height of a step, beside `state`: at the end of a forward pass."""
    rows, c = setting.micro_batch_size, setting.compute
    seq2seq = bool(model.llm.model.config.is_encoder_decoder)
    layers = t5_layers(model, rows, texts, c) if seq2seq else causal_layers(model, rows, texts, c)
    llm = layers.inputs + layers.largest if setting.checkpointing else layers.kept
    words = model.llm.model.get_output_embeddings().out_features
    linear = sum(m.weight.numel() for m in model.llm.modules() if isinstance(m, nn.Linear))
    # Also a weight in fp16, whose bytes are as many.
    cast = setting.precision is not Precision.fp32 and (held["llm"] is not torch.bfloat16 or _learns(model.llm))
    if setting.checkpointing:
        linear //= layers.number  # those of the layer that is computed again
    return {
        "casts of the language model": c * linear * cast,
        "activations of the language model": llm,
        "activations of the Q-Former": qformer_kept(model, rows, texts.prompt + 2, c),
        "activations of the vision encoder": _vision(model, rows, c),
        "logits": rows * texts.response * words * (4 + 4 + 4.0),  # in fp32: themselves, their softmax, its gradient
    }


@dataclass(frozen=True)
class Kept:
    """Bytes for backward in the language model: all layers, their inputs alone, and the largest layer."""

    kept: float
    inputs: float
    largest: float
    number: int


def causal_layers(model: InstructBlip, rows: float, texts: Texts, c: int) -> Kept:
    """A decoder that reads queries, prompt and response as one sequence."""
    config = model.llm.model.config
    d, heads, width = config.hidden_size, config.num_attention_heads, attention_width(config)
    shared = width * (getattr(config, "num_key_value_heads", None) or heads) // heads
    length = model.query_tokens.size(1) + texts.prompt + texts.response
    learnt = c * (2 * d + _inner(config)) + 8 * d if _learns(model.llm) else 0
    token = 2 * (4 * d + 4) + c * (2 * width + 2 * shared) + c * _branches(model) * _inner(config) + learnt
    layer = rows * length * (token + 4 * heads + c * length)  # with the log-sums of attention, and its mask
    number = config.num_hidden_layers
    final = rows * length * 4 * d
    return Kept(number * layer + final, number * rows * length * d * c + final, layer, number)


def t5_layers(model: InstructBlip, rows: float, texts: Texts, c: int) -> Kept:
    """An encoder of queries and prompt, a decoder of the response."""
    config = model.llm.model.config
    d, heads, width = config.hidden_size, config.num_attention_heads, attention_width(config)
    read, written = rows * (model.query_tokens.size(1) + texts.prompt), rows * texts.response
    norm, attention = (4 + c) * d + 4, 4 * c * width + 4 * heads
    ffn = c * _branches(model) * _inner(config)
    learnt = 2 * c * d + c * _inner(config) + 2 * c * d if _learns(model.llm) else 0
    encoder = read * (2 * norm + attention + ffn + learnt)
    decoder = written * (3 * norm + attention + 2 * c * width + 4 * heads + ffn + learnt) + read * 2 * c * width
    depth, decoders = config.num_hidden_layers, getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    lengths = (read / rows, written / rows)
    biases = c * heads * (read * lengths[0] + written * lengths[1] + written * lengths[0])  # shared by all layers
    ends = (read + written) * norm + biases
    inputs = c * d * (depth * read + decoders * written)
    return Kept(depth * encoder + decoders * decoder + ends, inputs + ends, max(encoder, decoder), depth + decoders)


def qformer_kept(model: InstructBlip, rows: float, text: float, c: int) -> float:
    """Bytes for backward from the image tokens to the language model, casts of the weights among them."""
    config = model.qformer.config
    queries, width, seen = model.query_tokens.size(1), model.ln_vision.normalized_shape[0], image_tokens(model)[1]
    text = text if config.instruction_aware else 0
    d, f, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads = config.num_attention_heads
    dropped = d if config.hidden_dropout_prob else 0  # a mask of a byte
    norm = 4 * d + 8 + dropped
    self_attention = (queries + text) * (7 * c * d + 4 * heads + norm)
    crossed = queries * (3 * c * d + 4 * heads + norm) + seen * c * (2 * width + 2 * d)
    ffn = (queries * depth + text * (depth - 1)) * (c * (d + 2 * f) + norm)  # nothing reads the last text
    ends = (queries + text) * norm + queries * c * d + seen * (4 * width + 8)
    crossings = -(-depth // config.cross_attention_frequency)
    between = [model.qformer, model.language_projection]
    maps = sum(w.numel() for part in between for w in part.parameters() if w.requires_grad and w.ndim == 2)
    maps -= sum(m.weight.numel() for m in model.qformer.modules() if isinstance(m, nn.Embedding))
    return rows * (depth * self_attention + ffn + crossings * crossed + ends) + (c * maps if c != 4 else 0)


def _vision(model: InstructBlip, rows: float, c: int) -> float:
    """Of a frozen encoder what one layer works with, else what all layers keep."""
    config = model.vision.encoder.config
    d, f, tokens = config.hidden_size, config.intermediate_size, rows * image_tokens(model)[1]
    if not _learns(model.vision):
        return tokens * (8 * d + c * 2 * f)
    return config.num_hidden_layers * tokens * (8 * d + c * (8 * d + 2 * f))


def _communicated(model: InstructBlip, setting: Setting, held: dict[str, torch.dtype], learnt: int) -> float:
    """DDP's buckets are a copy of the gradients; FSDP holds two layers of the language model whole."""
    if setting.strategy == "ddp":
        return 4.0 * learnt
    if setting.strategy != "fsdp":
        return 0.0
    layers = [m for m in model.llm.modules() if isinstance(m, nn.ModuleList)]
    largest = max(sum(p.numel() for p in layer.parameters()) for stack in layers for layer in stack)
    return 2.0 * largest * held["llm"].itemsize


def _inner(config: Any) -> int:
    return int(getattr(config, "intermediate_size", None) or getattr(config, "d_ff", None) or config.ffn_dim)


def _branches(model: InstructBlip) -> int:
    """Values a feed-forward keeps per unit: gate, its activation and up, or the activation alone (OPT's ReLU)."""
    gated = any(name.endswith((".gate_proj", ".wi_1")) for name, _ in model.llm.named_modules())
    return 3 if gated else 1


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
