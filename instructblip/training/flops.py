"""Model FLOPs of a step, from the shapes of the model's own linear maps and what each of them reads.

Counted are matrix products, 2 FLOPs a multiply-add, and attention in full also where it is causal, as
`torch.utils.flop_counter` does. Not counted: norms, softmax, lookups, the optimizer (together under 1 %), padding, and
whatever a run computes twice to save memory, so that MFU is comparable between runs (PaLM, arXiv 2204.02311, B).

Backward: a linear map costs once its forward for the gradient of its input, where something before it learns, and once
more for that of its weight, where that learns; attention costs twice its forward. So a frozen vision encoder has no
backward and a frozen language model half of one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from instructblip.data.collate import Batch
from instructblip.models.instructblip import InstructBlip

PARTS = ("vision", "qformer", "llm")
CROSS_READS = re.compile(r"(EncDecAttention\.[kv]|encoder_attn\.[kv]_proj)\b")  # maps of a decoder over the encoder
FIRST_DECODER_ATTENTION = re.compile(r"decoder\.(block\.0\.layer\.0\.SelfAttention|layers\.0\.self_attn)\.")
FIRST_DECODER_QUERY = re.compile(r"decoder\.(block\.0\.layer\.1\.EncDecAttention\.q|layers\.0\.encoder_attn\.q_proj)\b")


@dataclass(frozen=True)
class Counts:
    """What a step or a micro-batch holds, summed over its rows, padding and fillers left out."""

    pictures: float  # encoded, frames of a clip each for itself
    rows: float
    qformer_tokens: float  # of the instructions, [CLS] and [SEP] among them
    prompt_tokens: float  # of the language model, without the queries
    response_tokens: float  # targets
    frames: int = 1  # of each row

    @classmethod
    def of(cls, batch: Batch) -> Counts:
        """Of one micro-batch; cheap where it lies on the CPU, a wait for the device elsewhere."""
        real = [tokens for tokens in batch.tokens if tokens != (0, 0)]
        clips = batch.pixel_values.dim() == 5
        frames = batch.pixel_values.size(1) if clips else 1
        return cls(
            pictures=batch.pixel_values.size(0) * frames if real else 0,
            rows=len(real),
            qformer_tokens=int(batch.qformer_attention_mask.sum()) if real else 0,
            prompt_tokens=sum(prompt for prompt, _ in real),
            response_tokens=sum(response for _, response in real),
            frames=frames,
        )


@dataclass(frozen=True)
class Flops:
    """Forward and backward of one part."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def times(self, number: float) -> Flops:
        return Flops(self.forward * number, self.backward * number)


class StepFlops:
    """Built once from a model, real or a skeleton; called with the counts of a step it gives its FLOPs."""

    def __init__(self, model: InstructBlip) -> None:
        self._model_facts(model)
        # FLOPs of all linear maps of a part that read the same tokens, for each of these
        self.maps: dict[tuple[str, str], Flops] = defaultdict(Flops)
        for part, reads, flops in [*self._vision(model), *self._between(model), *self._language(model)]:
            self.maps[part, reads] += flops
        # (part, queries, keys) -> FLOPs of attention a pair of them
        self.attention: dict[tuple[str, str, str], Flops] = defaultdict(Flops)
        for part, queries, keys, flops in self._attention(model):
            self.attention[part, queries, keys] += flops

    def __call__(self, counts: Counts) -> float:
        """FLOPs of forward and backward together."""
        return sum(flops.total for flops in self.parts(counts).values())

    def parts(self, counts: Counts) -> dict[str, Flops]:
        """FLOPs of `vision`, `qformer` (with queries and projection) and `llm`.

        Attention goes with the squares of the lengths, for which their mean over the rows stands (under 1 % off).
        """
        spent = dict.fromkeys(PARTS, Flops())
        sequences = self._sequences(counts)
        for (part, reads), flops in self.maps.items():
            spent[part] += flops.times(sequences[reads][1])
        for (part, queries, keys), flops in self.attention.items():
            number, tokens = sequences[queries]
            spent[part] += flops.times(tokens * sequences[keys][1] / number if number else 0.0)
        return spent

    def _sequences(self, counts: Counts) -> dict[str, tuple[float, float]]:
        """Number of sequences of each kind, and tokens in all of them."""
        seen = counts.rows * counts.frames  # the Q-Former reads each frame for itself
        queries, text = seen * self.queries, counts.qformer_tokens * counts.frames if self.aware else 0.0
        return {
            "patches": (counts.pictures, counts.pictures * self.patches),
            "image": (counts.pictures, counts.pictures * self.image_tokens),
            "seen": (seen, seen * self.image_tokens),
            "queries": (seen, queries),
            "text": (seen, text),
            "both": (seen, queries + text),
            "input": (counts.rows, queries + counts.prompt_tokens + (0 if self.seq2seq else counts.response_tokens)),
            "response": (counts.rows, counts.response_tokens),
        }

    def _model_facts(self, model: InstructBlip) -> None:
        encoder = model.vision.encoder
        self.patches, self.image_tokens = image_tokens(model)
        self.queries = model.query_tokens.size(1)
        self.aware = bool(model.qformer.config.instruction_aware)
        self.seq2seq = bool(model.llm.model.config.is_encoder_decoder)
        self.vision_learns = _learns(encoder)
        self.image_learns = self.vision_learns or _learns(model.ln_vision)
        self.queries_learn = self.image_learns or model.query_tokens.requires_grad or _learns(model.qformer)
        self.input_learns = self.queries_learn or _learns(model.language_projection)

    def _vision(self, model: InstructBlip) -> Iterator[tuple[str, str, Flops]]:
        for _, module in _maps(model.vision):
            first = isinstance(module, nn.Conv2d)  # of pixels, which have no gradient
            yield "vision", "patches" if first else "image", _cost(module, self.vision_learns and not first)

    def _between(self, model: InstructBlip) -> Iterator[tuple[str, str, Flops]]:
        for name, module in _maps(model.qformer):
            if ".text_ffn." in name:
                layer: Any = model.qformer.layers[int(name.split(".")[1])]
                if layer.text_is_read:
                    yield "qformer", "text", _cost(module, self.queries_learn)
            elif re.search(r"cross_attention\.(key|value)\b", name):
                yield "qformer", "seen", _cost(module, self.image_learns)
            else:
                reads = "both" if ".self_attention." in name else "queries"
                yield "qformer", reads, _cost(module, self.queries_learn)
        yield "qformer", "queries", _cost(model.language_projection, self.queries_learn)

    def _language(self, model: InstructBlip) -> Iterator[tuple[str, str, Flops]]:
        llm = model.llm.model
        head, decoder = llm.get_output_embeddings(), "decoder."
        text_learns = _learns(llm.get_input_embeddings())
        for name, module in _maps(llm):
            if module is head:
                yield "llm", "response", _cost(module, self.input_learns)
            elif self.seq2seq and name.startswith(decoder) and not CROSS_READS.search(name):
                # What the decoder reads first are frozen words: nothing before its first attention learns.
                first = FIRST_DECODER_ATTENTION.search(name) or FIRST_DECODER_QUERY.search(name)
                yield "llm", "response", _cost(module, text_learns or (self.input_learns and not first))
            else:
                yield "llm", "input", _cost(module, self.input_learns)

    def _attention(self, model: InstructBlip) -> Iterator[tuple[str, str, str, Flops]]:
        vision, between, llm = model.vision.encoder.config, model.qformer.config, model.llm.model.config
        yield "vision", "image", "image", _pairs(vision.num_hidden_layers, vision.hidden_size, self.vision_learns)
        layers, crossed = between.num_hidden_layers, -(-between.num_hidden_layers // between.cross_attention_frequency)
        yield "qformer", "both", "both", _pairs(layers, between.hidden_size, self.queries_learn)
        yield "qformer", "queries", "seen", _pairs(crossed, between.hidden_size, self.queries_learn)
        width = attention_width(llm)
        yield "llm", "input", "input", _pairs(llm.num_hidden_layers, width, self.input_learns)
        if self.seq2seq:
            decoders = getattr(llm, "num_decoder_layers", None) or llm.num_hidden_layers
            text_learns = _learns(model.llm.model.get_input_embeddings())
            yield "llm", "response", "response", _pairs(1, width, text_learns)
            yield "llm", "response", "response", _pairs(decoders - 1, width, self.input_learns)
            yield "llm", "response", "input", _pairs(decoders - 1, width, self.input_learns)
            first = _pairs(1, width, self.input_learns)  # whose queries know nothing of what learns
            yield "llm", "response", "input", first if text_learns else Flops(first.forward, first.backward * 3 / 4)


def image_tokens(model: InstructBlip) -> tuple[int, int]:
    """Patches of a picture, and tokens with CLS where the encoder has one."""
    encoder = model.vision.encoder.config
    patches = (model.vision.image_size // encoder.patch_size) ** 2
    return patches, patches + (encoder.model_type != "siglip_vision_model")


def attention_width(config: Any) -> int:
    """Heads times their width, which T5 and some decoders choose apart from the hidden size."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None) or config.hidden_size // heads
    return int(heads * width)


def _maps(module: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    return ((name, each) for name, each in module.named_modules() if isinstance(each, nn.Linear | nn.Conv2d))


def _cost(module: nn.Linear | nn.Conv2d, input_learns: bool) -> Flops:
    forward = 2.0 * module.weight.numel()
    return Flops(forward, forward * (input_learns + module.weight.requires_grad))


def _pairs(layers: int, width: int, learns: bool) -> Flops:
    """Of a query and a key: their product, and what the value adds."""
    forward = 4.0 * layers * width
    return Flops(forward, 2 * forward * learns)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
