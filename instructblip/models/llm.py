"""The language model: any causal or encoder-decoder model of `transformers`, behind three verbs.

`token_nll` for training, `generate` and `rank` for evaluation. All take embeddings, because the projected
queries that stand before the prompt are no tokens.

Shapes: B rows, N rows or beams, C trees of candidates, S positions (queries and text), L prompt tokens,
T target tokens, D width, W vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
)
from transformers.modeling_outputs import BaseModelOutput

from instructblip.choices import Stored
from instructblip.config.model import LLMConfig
from instructblip.models.apart import turn_mask, turn_positions
from instructblip.models.generation import Search, Streamer, write
from instructblip.models.masks import layer_masks, windows
from instructblip.models.prefix import Prefix
from instructblip.models.pretrained import from_folder, from_tensors
from instructblip.models.ranking import Branches, log_likelihoods, node_positions, tree_mask
from instructblip.protocols import RepetitionScope

IGNORE = -100  # the label of a position that is no target, as in transformers


class CausalLM(nn.Module):
    """A decoder-only model (LLaMA, Vicuna, OPT, Qwen): queries, prompt and response are one sequence."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def token_nll(
        self, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood (B, T) of each target, 0 where `labels` (B, T) are -100.

        `inputs_embeds` (B, S, D) are the queries and then the T tokens that the labels stand at. Logits are
        computed where a target is predicted and nowhere else. With `turn` (B, S) the tokens of a turn read those of
        turn 0 and their own, at the positions they had if no other turn were there.
        """
        _check_length(self.model.config, inputs_embeds.size(1))
        targets = labels != IGNORE
        num_queries = inputs_embeds.size(1) - labels.size(1)
        predictors = F.pad(targets, (num_queries - 1, 1))  # (B, S), each one to the left of its target
        mask: Any = attention_mask
        position_ids = _positions(attention_mask)
        if turn is not None:
            mask = layer_masks(self.model, partial(turn_mask, turn, attention_mask))
            position_ids = turn_positions(turn, attention_mask)
        logits = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=position_ids,
            logits_to_keep=predictors,
            use_cache=False,
        ).logits  # (number of targets, W)
        nll = F.cross_entropy(_precise(logits), labels[targets], reduction="none")
        return nll.new_zeros(labels.shape).masked_scatter(targets, nll)  # (B, T)

    def prefill(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Prefix:
        """Reads each prompt once, moved so that all end in the last column."""
        inputs_embeds, attention_mask = _pad_left(inputs_embeds, attention_mask)
        output = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=_positions(attention_mask),
            past_key_values=DynamicCache(),  # whole, also of layers with a sliding window: their masks cut
            logits_to_keep=1,
        )
        return Prefix(output.logits[:, -1], output.past_key_values, attention_mask)

    def step(self, prefix: Prefix, ids: Tensor) -> Prefix:
        """The prefix with one more token (N, 1) in every row."""
        attention_mask = F.pad(prefix.attention_mask, (0, 1), value=1)  # (N, S + 1)
        output = self.model(
            input_ids=ids,
            attention_mask=attention_mask,
            position_ids=_positions(attention_mask)[:, -1:],
            past_key_values=prefix.cache,
        )
        return replace(prefix, logits=output.logits[:, -1], attention_mask=attention_mask)

    def generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        prompt_ids: Tensor,
        search: Search,
        seeds: Sequence[int] | None = None,
        streamer: Streamer | None = None,
    ) -> Tensor:
        """New token ids (B, <= max_new_tokens), right-padded with the pad id; see `generation.write`.

        `prompt_ids` (B, L), -100 where padding, are what scope `all` of the repetition penalty counts as said.
        """
        _check_length(self.model.config, inputs_embeds.size(1) + search.max_new_tokens)
        prefix = self.prefill(inputs_embeds, attention_mask)
        seen = torch.zeros_like(prefix.logits, dtype=torch.bool)  # (B, W)
        if search.repetition_scope == RepetitionScope.all:
            real = prompt_ids != IGNORE  # (B, L)
            seen[real.nonzero()[:, 0], prompt_ids[real]] = True
        return write(prefix, self.step, seen, search, seeds, *_ends(self.model), streamer)

    def rank(self, inputs_embeds: Tensor, attention_mask: Tensor, candidates: list[list[list[int]]]) -> list[Tensor]:
        """Total log-likelihood of each candidate after its row's prompt; see `ranking.log_likelihoods`."""
        windows(self.model.config)  # refuses before anything is computed
        longest = max(len(ids) for texts in candidates for ids in texts)
        _check_length(self.model.config, inputs_embeds.size(1) + longest)
        return log_likelihoods(self.prefill(inputs_embeds, attention_mask), candidates, self._evaluate, share=True)

    def _evaluate(self, prefix: Prefix, branches: Branches) -> Tensor:
        """Logits (C, N, W) of what follows each node of the trees."""
        return self.model(
            input_ids=branches.input_ids,
            attention_mask=layer_masks(self.model, partial(tree_mask, branches, prefix.attention_mask)),
            position_ids=node_positions(branches, prefix.attention_mask),
            past_key_values=prefix.cache,
        ).logits


class EncoderDecoderLM(nn.Module):
    """An encoder-decoder (T5): the encoder reads queries and prompt, the decoder writes the response."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def token_nll(
        self, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood (B, T) of each target, 0 where `labels` (B, T) are -100.

        `inputs_embeds` (B, S, D) are the queries and the prompt, for the encoder; every row is of one turn.
        """
        assert turn is None
        logits = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).logits  # (B, T, W)
        return _nll(logits, labels)

    def prefill(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Prefix:
        """Encodes each prompt once and reads the decoder's start token."""
        encoded = self.model.get_encoder()(inputs_embeds=inputs_embeds, attention_mask=attention_mask)
        start = attention_mask.new_full((len(attention_mask), 1), self.model.config.decoder_start_token_id)  # (B, 1)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits = self._decode(start, cache, attention_mask, encoded.last_hidden_state)  # (B, 1, W)
        return Prefix(logits[:, -1], cache, attention_mask, encoded.last_hidden_state)

    def step(self, prefix: Prefix, ids: Tensor) -> Prefix:
        """The prefix with one more token (N, 1) in every row."""
        return replace(prefix, logits=self._decode(ids, prefix.cache, prefix.attention_mask, prefix.encoded)[:, -1])

    def generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        prompt_ids: Tensor,
        search: Search,
        seeds: Sequence[int] | None = None,
        streamer: Streamer | None = None,
    ) -> Tensor:
        """New token ids (B, <= max_new_tokens), right-padded with the pad id; see `generation.write`.

        The prompt is no part of what the decoder writes: both scopes of the repetition penalty count its own
        tokens alone, the start token included, as `transformers` does.
        """
        prefix = self.prefill(inputs_embeds, attention_mask)
        seen = torch.zeros_like(prefix.logits, dtype=torch.bool)  # (B, W)
        seen[:, self.model.config.decoder_start_token_id] = True
        return write(prefix, self.step, seen, search, seeds, *_ends(self.model), streamer)

    def rank(self, inputs_embeds: Tensor, attention_mask: Tensor, candidates: list[list[list[int]]]) -> list[Tensor]:
        """Total log-likelihood of each candidate after its row's prompt; see `ranking.log_likelihoods`.

        T5 reads positions off the order of the decoder's tokens, so each candidate is decoded by itself.
        """
        return log_likelihoods(self.prefill(inputs_embeds, attention_mask), candidates, self._evaluate, share=False)

    def _evaluate(self, prefix: Prefix, branches: Branches) -> Tensor:
        return self._decode(branches.input_ids, prefix.cache, prefix.attention_mask, prefix.encoded)  # (C, N, W)

    def _decode(self, ids: Tensor, cache: Any, attention_mask: Tensor, encoded: Tensor | None) -> Tensor:
        """Logits (N, T, W) of what follows each of the next tokens (N, T); they join the cache."""
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=attention_mask,
            decoder_input_ids=ids,
            past_key_values=cache,
        ).logits


LLM = CausalLM | EncoderDecoderLM


def language_model(config: LLMConfig, tensors: dict[str, Tensor] | None = None) -> LLM:
    """Weights from `tensors`, or from `config.weights` (a .safetensors file or a `transformers` folder), else drawn.

    `config.config` is laid over the model's own config: `dense_act_fn: gelu` for Flan-T5, since the released
    Q-Formers were trained against the exact GELU (LAVIS `blip2_t5_instruct.py`).

    Raises:
        ValueError: an unknown type, weights that do not fit, a config without EOS or pad id, or a causal model that
            cannot be told positions (ALiBi).
    """
    for name in ("eos_token_id", "pad_token_id"):
        if config.config.get(name) is None:
            raise ValueError(f"model.llm.config.{name} is not set; it says how a response ends or is padded")
    model_config = AutoConfig.for_model(config.type, **config.config)
    seq2seq = model_config.is_encoder_decoder
    if seq2seq and getattr(model_config, "decoder_start_token_id", None) is None:
        model_config.decoder_start_token_id = model_config.pad_token_id  # T5's; its config class is silent
    auto_class = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    dtype = "auto" if config.dtype is Stored.auto else getattr(torch, config.dtype.value)
    if tensors is None and config.weights is not None and Path(config.weights).is_file():
        tensors = load_file(config.weights)
    if tensors is not None:
        with torch.device("meta"):
            model_class = type(auto_class.from_config(model_config))
        model = from_tensors(model_class, model_config, tensors, config.weights or "model.init", dtype=dtype)
    elif config.weights is not None:
        model = _from_folder(auto_class, config.weights, config.config | {"dtype": dtype})
    else:
        model = auto_class.from_config(model_config)
    if not seq2seq and "position_ids" not in inspect.signature(model.forward).parameters:
        raise ValueError(f"model.llm.type={config.type} takes no position_ids: it would count the padding of a prompt")
    # A folder may come with search settings of its own; those of the protocol alone shall count.
    model.generation_config = GenerationConfig.from_model_config(model.config)
    return EncoderDecoderLM(model) if seq2seq else CausalLM(model)


def _from_folder(auto_class: Any, folder: str, config: dict[str, Any]) -> Any:
    """The folder's model, with rows for tokens it has not: Vicuna's pad token is number 32000 (PAPER A.5)."""
    later = ("vocab_size", "pad_token_id")
    model = from_folder(auto_class, folder, {k: v for k, v in config.items() if k not in later})
    if config.get("vocab_size", 0) > model.config.vocab_size:
        model.resize_token_embeddings(config["vocab_size"])
    model.config.pad_token_id = config["pad_token_id"]
    return model


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood (B, T) of labels (B, T), 0 where they are -100, from logits (B, T, W)."""
    return F.cross_entropy(_precise(logits).transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")


def _precise(logits: Tensor) -> Tensor:
    """float32 at least: a softmax over a vocabulary is no work for half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_length(config: Any, length: int) -> None:
    """A decoder has as many positions as it learnt; beyond them it fails or, with rotary ones, only grows worse."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise ValueError(
            f"queries, prompt and response have {length} tokens, the language model {limit} positions; "
            "cut the prompt (eval_llm_limit, model.llm.max_prompt_length)"
        )


def _positions(attention_mask: Tensor) -> Tensor:
    """Positions (B, S) that count real tokens only, wherever the padding stands."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def _pad_left(inputs_embeds: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """All padding before the queries, so that the last column holds every row's last token."""
    order = attention_mask.argsort(dim=1, stable=True)  # (B, S)
    return inputs_embeds.take_along_dim(order[..., None], dim=1), attention_mask.gather(1, order)


def _ends(model: Any) -> tuple[Tensor, int]:
    """The ids that end a response (modern models have several), and the pad id."""
    settings = model.generation_config
    return torch.tensor([settings.eos_token_id], device=model.device).flatten(), settings.pad_token_id
