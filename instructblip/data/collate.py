"""The border where strings end: Examples and pixels become a Batch of tensors.

Prompt and response are tokenised apart and joined as ids, so the label mask is exact by construction.
Legend: B rows, I images, T tokens of the language model, L tokens of the Q-Former's instruction, S image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from instructblip.config import LLMConfig, QFormerConfig
from instructblip.data.templates import Example

IGNORE = -100


class Tokenizer(Protocol):
    """What collation needs of a transformers tokenizer."""

    pad_token_id: int
    eos_token_id: int
    bos_token_id: int | None

    def __call__(self, text: list[str], **options: Any) -> Any: ...


@dataclass(frozen=True)
class Batch:
    """Tensors of one micro-batch, named as in transformers. There are no placeholder ids for the queries."""

    pixel_values: Tensor  # uint8 (I, 3, S, S)
    image_index: Tensor  # (B,) the image of each row
    qformer_input_ids: Tensor  # (B, L)
    qformer_attention_mask: Tensor  # (B, L)
    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T)
    labels: Tensor | None  # (B, T), or (B, T_out) for an encoder-decoder; -100 on prompt and padding
    loss_weight: Tensor | None  # as labels: 1 on targets, 0 elsewhere, until the step's counts are known
    recipe: Tensor  # (B,) index of the dataset in the mixture
    group: Tensor  # (B,) group of the loss within the step
    uids: tuple[str, ...]
    cu_seqlens: Tensor | None = None  # boundaries of packed rows

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Row:
    """One Example with its place: which picture, which dataset, which group; `counts` is False for a filler."""

    example: Example
    image: int
    recipe: int = 0
    group: int = 0
    counts: bool = True


@dataclass(frozen=True)
class Collator:
    """Tokenises with the limits of the model's config (PAPER B.2): prompts cut on the left, responses on the right."""

    llm_tokenizer: Tokenizer
    qformer_tokenizer: Tokenizer
    llm: LLMConfig
    qformer: QFormerConfig
    encoder_decoder: bool

    def training(self, rows: Sequence[Row], pixels: Sequence[Tensor]) -> Batch:
        """Rows with their responses as labels. Raises ValueError naming a row that has no instruction or response."""
        for row in rows:
            if not row.example.instruction.strip() or not row.example.response.strip():
                raise ValueError(f"{row.example.uid}: empty instruction or response")
        prompts = self.prompt_ids([row.example.instruction for row in rows], self.llm.max_prompt_length)
        responses = self.response_ids([row.example.response for row in rows])
        if self.encoder_decoder:
            input_ids, attention_mask = self._pad(prompts, left=False)
            labels, _ = self._pad(responses, left=False, value=IGNORE)
        else:
            joined = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
            input_ids, attention_mask = self._pad(joined, left=False)
            masked = [[IGNORE] * len(p) + r for p, r in zip(prompts, responses, strict=True)]
            labels, _ = self._pad(masked, left=False, value=IGNORE)
        counts = torch.tensor([row.counts for row in rows])
        weight = ((labels != IGNORE) & counts[:, None]).float()  # (B, T)
        return self._batch(rows, pixels, input_ids, attention_mask, labels, weight)

    def prompts(self, instructions: Sequence[str], pixels: Sequence[Tensor], image_index: Sequence[int]) -> Batch:
        """Prompts alone, for generate and rank; whole for the language model, left-padded where it is causal."""
        examples = [Example(text, "", "", "", "") for text in instructions]
        rows = [Row(example, image) for example, image in zip(examples, image_index, strict=True)]
        input_ids, attention_mask = self._pad(self.prompt_ids(instructions, None), left=not self.encoder_decoder)
        return self._batch(rows, pixels, input_ids, attention_mask, None, None)

    def prompt_ids(self, instructions: Sequence[str], limit: int | None) -> list[list[int]]:
        """BOS + instruction (causal) or instruction + EOS (encoder-decoder); the last `limit` ids."""
        tokenizer = self.llm_tokenizer
        before = [tokenizer.bos_token_id] if self.llm.bos_token and tokenizer.bos_token_id is not None else []
        after = [tokenizer.eos_token_id] if self.encoder_decoder else []
        room = None if limit is None else limit - len(before) - len(after)
        texts = self._ids(tokenizer, instructions)
        return [before + (ids if room is None else ids[max(len(ids) - room, 0) :]) + after for ids in texts]

    def response_ids(self, responses: Sequence[str]) -> list[list[int]]:
        """Response + EOS, cut to the limit from the right: a long response loses its EOS, as in LAVIS."""
        texts = [self.llm.response_prefix + response for response in responses]
        eos = self.llm_tokenizer.eos_token_id
        return [[*ids, eos][: self.llm.max_response_length] for ids in self._ids(self.llm_tokenizer, texts)]

    def candidate_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids to rank: with EOS for an encoder-decoder, without for a causal model (PAPER B.6)."""
        ids = self._ids(self.llm_tokenizer, [self.llm.response_prefix + text for text in texts])
        end = [self.llm_tokenizer.eos_token_id] if self.encoder_decoder else []
        return [row + end for row in ids]

    def _ids(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def _pad(self, rows: list[list[int]], *, left: bool, value: int | None = None) -> tuple[Tensor, Tensor]:
        fill = self.llm_tokenizer.pad_token_id if value is None else value
        width = max(map(len, rows))
        padding = [[fill] * (width - len(row)) for row in rows]
        mask = [[0] * len(pad) + [1] * len(row) if left else [1] * len(row) + [0] * len(pad)
                for row, pad in zip(rows, padding, strict=True)]  # fmt: skip
        ids = [pad + row if left else row + pad for row, pad in zip(rows, padding, strict=True)]
        return torch.tensor(ids), torch.tensor(mask)

    def _batch(
        self, rows: Sequence[Row], pixels: Sequence[Tensor], input_ids: Tensor, attention_mask: Tensor,
        labels: Tensor | None, weight: Tensor | None,
    ) -> Batch:  # fmt: skip
        text = self.qformer_tokenizer(
            [row.example.instruction for row in rows],
            padding="longest", truncation=True, max_length=self.qformer.max_length, return_tensors="pt",
        )  # fmt: skip
        return Batch(
            pixel_values=torch.stack(list(pixels)),
            image_index=torch.tensor([row.image for row in rows]),
            qformer_input_ids=text["input_ids"],
            qformer_attention_mask=text["attention_mask"],
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
            loss_weight=weight,
            recipe=torch.tensor([row.recipe for row in rows]),
            group=torch.tensor([row.group for row in rows]),
            uids=tuple(row.example.uid for row in rows),
        )
