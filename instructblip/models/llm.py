"""The language model: any causal or encoder-decoder model of `transformers`, behind three verbs.

`token_nll` for training, `generate` and `rank` for evaluation. All take embeddings, because the projected
queries that stand before the prompt are no tokens.

Shapes: B rows, S positions (queries and text), T target tokens, C candidates of a chunk, D width,
W vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from instructblip.config import LLMConfig
from instructblip.models.pretrained import from_folder, from_tensors

IGNORE = -100  # the label of a position that is no target, as in transformers
CANDIDATES_PER_FORWARD = 64  # bounds the memory of rank; the scores do not depend on it


class CausalLM(nn.Module):
    """A decoder-only model (LLaMA, Vicuna, OPT, Qwen): queries, prompt and response are one sequence."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def token_nll(self, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood (B, T) of each target, 0 where `labels` (B, T) are -100.

        `inputs_embeds` (B, S, D) are the queries and then the T tokens that the labels stand at. Logits are
        computed where a target is predicted and nowhere else.
        """
        targets = labels != IGNORE
        num_queries = inputs_embeds.size(1) - labels.size(1)
        predictors = F.pad(targets, (num_queries - 1, 1))  # (B, S), each one to the left of its target
        logits = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=_positions(attention_mask),
            logits_to_keep=predictors,
            use_cache=False,
        ).logits  # (number of targets, W)
        nll = F.cross_entropy(logits.float(), labels[targets], reduction="none")
        return nll.new_zeros(labels.shape).masked_scatter(targets, nll)  # (B, T)

    def generate(self, inputs_embeds: Tensor, attention_mask: Tensor, **search: Any) -> Tensor:
        """New token ids (B, <= max_new_tokens), right-padded with the pad id; `search` as in transformers."""
        inputs_embeds, attention_mask = _pad_left(inputs_embeds, attention_mask)
        return _beam_search(self.model, inputs_embeds, attention_mask, **search)

    def rank(self, inputs_embeds: Tensor, attention_mask: Tensor, candidates: list[list[list[int]]]) -> list[Tensor]:
        """Total log-likelihood of each candidate after its row's prompt, which is evaluated once."""
        inputs_embeds, attention_mask = _pad_left(inputs_embeds, attention_mask)
        prompt = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=_positions(attention_mask),
            logits_to_keep=1,
            use_cache=True,
        )

        def logits_of(rows: Tensor, labels: Tensor) -> Tensor:
            first = prompt.logits[rows]  # (C, 1, W): the prompt predicts the first token of every candidate
            if labels.size(1) == 1:
                return first
            cache = copy.deepcopy(prompt.past_key_values)
            cache.batch_select_indices(rows)
            inputs = labels[:, :-1]  # (C, T - 1)
            mask = torch.cat((attention_mask[rows], (inputs != IGNORE).long()), dim=1)  # (C, S + T - 1)
            rest = self.model(
                input_ids=inputs.clamp(min=0),
                attention_mask=mask,
                position_ids=_positions(mask)[:, attention_mask.size(1) :],
                past_key_values=cache,
            ).logits  # (C, T - 1, W)
            return torch.cat((first, rest), dim=1)

        return _score_in_chunks(candidates, logits_of, inputs_embeds.device)


class EncoderDecoderLM(nn.Module):
    """An encoder-decoder (T5): the encoder reads queries and prompt, the decoder writes the response."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def token_nll(self, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood (B, T) of each target, 0 where `labels` (B, T) are -100.

        `inputs_embeds` (B, S, D) are the queries and the prompt, for the encoder.
        """
        logits = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).logits  # (B, T, W)
        return _nll(logits, labels)

    def generate(self, inputs_embeds: Tensor, attention_mask: Tensor, **search: Any) -> Tensor:
        """New token ids (B, <= max_new_tokens), right-padded with the pad id; `search` as in transformers."""
        return _beam_search(self.model, inputs_embeds, attention_mask, **search)

    def rank(self, inputs_embeds: Tensor, attention_mask: Tensor, candidates: list[list[list[int]]]) -> list[Tensor]:
        """Total log-likelihood of each candidate after its row's prompt, which is encoded once."""
        encoded = self.model.get_encoder()(inputs_embeds=inputs_embeds, attention_mask=attention_mask)
        prompt = encoded.last_hidden_state  # (B, S, D)

        def logits_of(rows: Tensor, labels: Tensor) -> Tensor:
            return self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=prompt[rows]),
                attention_mask=attention_mask[rows],
                decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels),
                use_cache=False,
            ).logits  # (C, T, W)

        return _score_in_chunks(candidates, logits_of, inputs_embeds.device)


LLM = CausalLM | EncoderDecoderLM


def language_model(config: LLMConfig, tensors: dict[str, Tensor] | None = None) -> LLM:
    """Weights from `tensors`, or from `config.weights` (a .safetensors file or a `transformers` folder), else drawn.

    `config.config` is laid over the model's own config: `dense_act_fn: gelu` for Flan-T5, since the released
    Q-Formers were trained against the exact GELU (LAVIS `blip2_t5_instruct.py`).

    Raises:
        ValueError: an unknown type, weights that do not fit, or a config without EOS or pad id.
    """
    for name in ("eos_token_id", "pad_token_id"):
        if config.config.get(name) is None:
            raise ValueError(f"model.llm.config.{name} is not set; it says how a response ends or is padded")
    model_config = AutoConfig.for_model(config.type, **config.config)
    seq2seq = model_config.is_encoder_decoder
    if seq2seq and getattr(model_config, "decoder_start_token_id", None) is None:
        model_config.decoder_start_token_id = model_config.pad_token_id  # T5's; its config class is silent
    auto_class = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    if tensors is None and config.weights is not None and Path(config.weights).is_file():
        tensors = load_file(config.weights)
    if tensors is not None:
        with torch.device("meta"):
            model_class = type(auto_class.from_config(model_config))
        model = from_tensors(model_class, model_config, tensors, config.weights or "model.init")
    elif config.weights is not None:
        model = _from_folder(auto_class, config.weights, config.config)
    else:
        model = auto_class.from_config(model_config)
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
    return F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")


def _positions(attention_mask: Tensor) -> Tensor:
    """Positions (B, S) that count real tokens only, wherever the padding stands."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def _pad_left(inputs_embeds: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """All padding before the queries, so that the last column holds every row's last token."""
    order = attention_mask.argsort(dim=1, stable=True)  # (B, S)
    return inputs_embeds.take_along_dim(order[..., None], dim=1), attention_mask.gather(1, order)


def _beam_search(
    model: Any, inputs_embeds: Tensor, attention_mask: Tensor, *, repetition_penalty: float, **search: Any
) -> Tensor:
    """What `transformers` writes after these embeddings, with two of its habits undone."""
    # Left to itself, transformers 5.23 forgives a row as many repeated tokens as it has padding on the left.
    penalty = RepetitionPenaltyLogitsProcessor(float(repetition_penalty))
    ids = model.generate(
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        do_sample=False,
        logits_processor=LogitsProcessorList([penalty]),
        **search,
    )
    if model.config.is_encoder_decoder:
        ids = ids[:, 1:]  # without the decoder's start token
    # A pad id of 0 it takes for none, and fills up with EOS instead.
    is_eos = torch.isin(ids, torch.tensor(model.generation_config.eos_token_id, device=ids.device))
    return ids.masked_fill(is_eos.cumsum(dim=1) > is_eos.long(), model.generation_config.pad_token_id)


def _score_in_chunks(
    candidates: list[list[list[int]]], logits_of: Callable[[Tensor, Tensor], Tensor], device: torch.device
) -> list[Tensor]:
    """Per row the log-likelihood of its candidates; `logits_of(rows (C,), labels (C, T))` gives (C, T, W)."""
    rows = torch.tensor([row for row, texts in enumerate(candidates) for _ in texts], device=device)
    texts = [torch.tensor(ids, device=device) for row in candidates for ids in row]
    scores = []
    for start in range(0, len(texts), CANDIDATES_PER_FORWARD):
        chunk = slice(start, start + CANDIDATES_PER_FORWARD)
        labels = pad_sequence(texts[chunk], batch_first=True, padding_value=IGNORE)  # (C, T)
        nll = _nll(logits_of(rows[chunk], labels), labels)  # (C, T)
        scores.append(-nll.sum(dim=1))  # (C,)
    return list(torch.cat(scores).split([len(texts) for texts in candidates]))
