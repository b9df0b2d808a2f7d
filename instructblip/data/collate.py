"""The border where strings end: Examples and pixels become a Batch of tensors.

Prompt and response are tokenised apart and joined as ids, so the label mask is exact by construction. A "</s>" in
the text of a dataset is read as letters (but T5's unigram model has it for a word).
Legend: B rows, I images, T tokens of the language model, L tokens of the Q-Former's instruction, S image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from instructblip.choices import PromptFormat
from instructblip.config.model import LLMConfig, ModelConfig, QFormerConfig
from instructblip.data.templates import Example
from instructblip.data.turns import IGNORE, Turns, apart

INPUTS = (  # of the model's forward, generate and rank
    "pixel_values", "image_index", "query_position", "input_ids", "attention_mask",
    "qformer_input_ids", "qformer_attention_mask",
)  # fmt: skip


class Tokenizer(Protocol):
    """What collation needs of a transformers tokenizer."""

    pad_token_id: int
    eos_token_id: int
    bos_token_id: int | None
    cls_token_id: int
    sep_token_id: int

    def __call__(self, text: list[str], **options: Any) -> Any: ...


class Tokenizers(Protocol):
    """A model's pair, however it was read."""

    @property
    def llm(self) -> Any: ...

    @property
    def qformer(self) -> Any: ...


@dataclass(frozen=True)
class Batch:
    """Tensors of one micro-batch, named as in transformers. There are no placeholder ids for the queries."""

    pixel_values: Tensor  # uint8 (I, 3, S, S), of clips (I, F, 3, S, S); (0,) where they are encoded elsewhere
    image_index: Tensor  # (B,) the image of each row
    qformer_input_ids: Tensor  # (B, L)
    qformer_attention_mask: Tensor  # (B, L)
    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T)
    labels: Tensor | None  # (B, T), or (B, T_out) for an encoder-decoder; -100 on prompt and padding
    loss_weight: Tensor | None  # as labels: 1 on targets, 0 elsewhere, until the step's counts are known
    recipe: Tensor  # (B,) index of the dataset in the mixture
    group: Tensor  # (B,) group of the loss within the step
    place: Tensor  # (B,) of the row in the step
    uids: tuple[str, ...]
    cu_seqlens: Tensor | None = None  # boundaries of packed rows
    query_position: Tensor | None = None  # (B,) column of input_ids that the queries stand before; None: the first
    truncated: tuple[bool, ...] = ()  # rows of which one of the two text towers reads only the end
    template: tuple[int, ...] = ()  # place of each row's wording among those of its dataset
    turn: Tensor | None = None  # (B, T) 0: all turns read it, else the turn it is of; None: one turn a row
    tokens: tuple[tuple[int, int], ...] = ()  # of each row's prompt and response; none of a filler

    def inputs(self) -> dict[str, Tensor | None]:
        """What the model looks at and reads, by the names of its arguments; `query_position` is None but for chat."""
        return {name: getattr(self, name) for name in INPUTS}

    def to(self, device: torch.device) -> Batch:
        """On the device; from pinned memory the copy does not hold up the caller."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In page-locked memory, which the data loader asks for by this name."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class Row:
    """One Example with its place in the step: which picture, dataset and group; `counts` is False for a filler."""

    example: Example
    image: int
    recipe: int = 0
    group: int = 0
    place: int = 0
    counts: bool = True
    template: int = 0


@dataclass(frozen=True)
class Collator:
    """Tokenises with the limits of the model's config (PAPER B.2): prompts cut on the left, responses on the right."""

    llm_tokenizer: Tokenizer
    qformer_tokenizer: Tokenizer
    llm: LLMConfig
    qformer: QFormerConfig
    encoder_decoder: bool

    @classmethod
    def of(cls, config: ModelConfig, tokenizers: Tokenizers, encoder_decoder: bool) -> Collator:
        return cls(tokenizers.llm, tokenizers.qformer, config.llm, config.qformer, encoder_decoder)

    def training(self, rows: Sequence[Row], pixels: Sequence[Tensor]) -> Batch:
        """Rows with their responses as labels; of an empty instruction the towers read what frames it, or nothing.

        Where a row has several turns, a causal model reads all of them at once, an encoder-decoder each as a row of
        its own, as its encoder reads in both directions. Raises ValueError naming a row that has no response.
        """
        if self.encoder_decoder:
            rows = [alone for row in rows for alone in _alone(row)]
        for row in rows:
            if not row.example.response.strip():
                raise ValueError(f"{row.example.uid}: empty response")
        shared = [row.example.context or row.example.instruction for row in rows]
        prompts, cut = self._prompts(shared, self.llm.max_prompt_length)
        joined, said, turn = self._joined(prompts, self._turns([row.example for row in rows]))
        input_ids, attention_mask = self._pad(joined, left=False)
        labels, _ = self._pad(said, left=False, value=IGNORE)
        counts = torch.tensor([row.counts for row in rows])
        weight = ((labels != IGNORE) & counts[:, None]).float()  # (B, T)
        batch = self._batch(rows, pixels, input_ids, attention_mask, cut, labels, weight)
        templates, tokens = tuple(row.template for row in rows), self._tokens(rows, joined, said)
        return replace(batch, template=templates, tokens=tokens, turn=turn)

    def _tokens(self, rows: Sequence[Row], read: list[list[int]], said: list[list[int]]) -> tuple[tuple[int, int], ...]:
        """Of each row what is asked and what is to be said; a filler has none."""
        answered = [sum(label != IGNORE for label in labels) for labels in said]
        asked = [len(ids) - (0 if self.encoder_decoder else own) for ids, own in zip(read, answered, strict=True)]
        pairs = zip(asked, answered, strict=True)
        return tuple(pair if row.counts else (0, 0) for row, pair in zip(rows, pairs, strict=True))

    def prompts(
        self, instructions: Sequence[str], pixels: Sequence[Tensor], image_index: Sequence[int],
        limit: int | None = None, sees: bool = True,
    ) -> Batch:  # fmt: skip
        """Prompts alone, for generate and rank; left-padded where the language model is causal. One may be empty.

        No `pixels` are needed for pictures that were encoded before, which `image_index` then counts. Without a
        picture, `sees` False, the Q-Former has nothing to do, and cuts no prompt.
        The language model reads the last `limit` ids, with None all (LAVIS); the Q-Former always its last
        `qformer.max_length`.
        """
        examples = [Example(text, "", "", "", "") for text in instructions]
        rows = [Row(example, image) for example, image in zip(examples, image_index, strict=True)]
        prompts, cut = self._prompts(instructions, limit)
        input_ids, attention_mask = self._pad(prompts, left=not self.encoder_decoder)
        batch = self._batch(rows, pixels, input_ids, attention_mask, cut, None, None)
        return batch if sees else replace(batch, truncated=tuple(cut))

    def response_ids(self, responses: Sequence[str]) -> list[list[int]]:
        """Response + EOS, cut to the limit from the right: a long response loses its EOS, as in LAVIS."""
        texts = [self.llm.response_prefix + response for response in responses]
        eos = self.llm_tokenizer.eos_token_id
        return [[*ids, eos][: self.llm.max_response_length] for ids in self._ids(self.llm_tokenizer, texts)]

    def candidate_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids to rank: with EOS for an encoder-decoder, without for a causal model (PAPER B.6).

        Raises ValueError naming a candidate without text.
        """
        if empty := [number for number, text in enumerate(texts) if not text.strip()]:
            raise ValueError(f"candidates {empty} of {len(texts)} are empty; give each a text")
        ids = self._ids(self.llm_tokenizer, [self.llm.response_prefix + text for text in texts])
        end = [self.llm_tokenizer.eos_token_id] if self.encoder_decoder else []
        return [row + end for row in ids]

    def _turns(self, examples: Sequence[Example]) -> list[Turns]:
        """What is asked and to be said beyond each prompt: the response alone, or every question of its context."""
        pairs = [[(each.instruction if each.context else "", each.response), *each.following] for each in examples]
        asked = self._ids(self.llm_tokenizer, [asked for row in pairs for asked, _ in row])
        turns = zip(asked, self.response_ids([said for row in pairs for _, said in row]), strict=True)
        return [list(islice(turns, len(row))) for row in pairs]

    def _joined(
        self, prompts: list[list[int]], turns: list[Turns]
    ) -> tuple[list[list[int]], list[list[int]], Tensor | None]:
        """Ids to read and labels of each row; and where a causal model reads several turns, which each belongs to."""
        rows = list(zip(prompts, turns, strict=True))
        if self.encoder_decoder:
            return prompts, [said for ((_, said),) in turns], None
        parts = [apart(*row) for row in rows]
        several = any(len(asked) > 1 for asked in turns)
        turn = self._pad([numbers for _, _, numbers in parts], left=False, value=0)[0] if several else None
        return [read for read, _, _ in parts], [labels for _, labels, _ in parts], turn

    @cached_property
    def _turn(self) -> tuple[list[int], list[int]]:
        """Ids before and after every instruction: BOS, the user turn of a chat, an encoder's EOS."""
        tokenizer, head, tail = self.llm_tokenizer, "", ""
        if self.llm.prompt_format is PromptFormat.chat:
            head, slot, tail = (self.llm.chat_template or "").partition("{prompt}")
            if not slot:
                raise ValueError(f"model.llm.chat_template={self.llm.chat_template!r} has no slot {{prompt}}")
        before, after = tokenizer([head, tail], add_special_tokens=False)["input_ids"]
        bos = [tokenizer.bos_token_id] if self.llm.bos_token and tokenizer.bos_token_id is not None else []
        return bos + before, after + [tokenizer.eos_token_id] * self.encoder_decoder

    def _prompts(self, instructions: Sequence[str], limit: int | None) -> tuple[list[list[int]], list[bool]]:
        """Whole turns of at most `limit` ids, and which instructions lost their beginning for it."""
        head, tail = self._turn
        room = None if limit is None else limit - len(head) - len(tail)
        texts, cut = _last(self._ids(self.llm_tokenizer, instructions), room, limit)
        return [head + ids + tail for ids in texts], cut

    def _ids(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []  # tokenizers cannot take an empty list
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}  # limits are ours
        ids: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
        return ids

    def _pad(self, rows: list[list[int]], *, left: bool, value: int | None = None) -> tuple[Tensor, Tensor]:
        fill = self.llm_tokenizer.pad_token_id if value is None else value
        width = max(map(len, rows))
        padding = [[fill] * (width - len(row)) for row in rows]
        mask = [[0] * len(pad) + [1] * len(row) if left else [1] * len(row) + [0] * len(pad)
                for row, pad in zip(rows, padding, strict=True)]  # fmt: skip
        ids = [pad + row if left else row + pad for row, pad in zip(rows, padding, strict=True)]
        return torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.int64)  # (B, 0) has no dtype

    def _batch(
        self, rows: Sequence[Row], pixels: Sequence[Tensor], input_ids: Tensor, attention_mask: Tensor,
        cut: Sequence[bool], labels: Tensor | None, weight: Tensor | None,
    ) -> Batch:  # fmt: skip
        bert, limit = self.qformer_tokenizer, self.qformer.max_length
        texts, also_cut = _last(self._ids(bert, [row.example.instruction for row in rows]), limit - 2, limit)
        text = [[bert.cls_token_id, *ids, bert.sep_token_id] for ids in texts]
        qformer_input_ids, qformer_attention_mask = self._pad(text, left=False, value=bert.pad_token_id)
        in_turn = self.llm.prompt_format is PromptFormat.chat
        return Batch(
            pixel_values=stacked(pixels),
            image_index=torch.tensor([row.image for row in rows]),
            qformer_input_ids=qformer_input_ids,
            qformer_attention_mask=qformer_attention_mask,
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
            loss_weight=weight,
            recipe=torch.tensor([row.recipe for row in rows]),
            group=torch.tensor([row.group for row in rows]),
            place=torch.tensor([row.place for row in rows]),
            uids=tuple(row.example.uid for row in rows),
            query_position=attention_mask.argmax(dim=1) + len(self._turn[0]) if in_turn else None,  # (B,)
            truncated=tuple(a or b for a, b in zip(cut, also_cut, strict=True)),
        )


def _alone(row: Row) -> list[Row]:
    """Each turn as a row, with what all of them are about before it."""
    shared = row.example
    if not shared.following:
        return [row]
    turns = [(shared.instruction, shared.response), *shared.following]
    alone = replace(shared, context="", following=())
    examples = [replace(alone, instruction=f"{shared.context} {asked}", response=said) for asked, said in turns]
    return [replace(row, example=example) for example in examples]


def _last(texts: list[list[int]], room: int | None, limit: int | None) -> tuple[list[list[int]], list[bool]]:
    """The last `room` ids of each text, with None all, and which were cut; `limit` is what the user set."""
    if room is None:
        return texts, [False] * len(texts)
    if room < 1:
        raise ValueError(f"a limit of {limit} tokens leaves {room} for the prompt itself; raise it")
    return [ids[-room:] for ids in texts], [len(ids) > room for ids in texts]


def stacked(pixels: Sequence[Tensor]) -> Tensor:
    """(I, 3, S, S), of clips (I, F, 3, S, S). Pictures and clips, or clips of other lengths, do not mix."""
    if not pixels:
        return torch.empty(0, dtype=torch.uint8)
    frames = sorted({len(image) if image.dim() == 4 else 1 for image in pixels})
    if len(frames) > 1:
        raise ValueError(
            f"a batch holds media of {' and '.join(map(str, frames))} frames; its rows need as many queries each: "
            "train pictures and clips apart, and give every clip as many frames"
        )
    return torch.stack(list(pixels))
