"""Collation for BLIP-2's first stage: captions in the Q-Former's words, and no instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructblip.data.collate import Batch, Collator, Row, Tokenizer, stacked


@dataclass(frozen=True)
class CaptionCollator:
    """[CLS] caption [SEP], cut on the right and padded to `max_length` (LAVIS), so that ranks can exchange them."""

    tokenizer: Tokenizer
    max_length: int

    def training(self, rows: Sequence[Row], pixels: Sequence[Tensor]) -> Batch:
        """Every response as a caption; `loss_weight` (B, T - 1) is 1 where a token is to be written."""
        texts = [row.example.response for row in rows]
        if self.max_length < 3:
            raise ValueError(f"model.stage1.max_length={self.max_length} leaves no room for words; raise it above 2")
        options = {"add_special_tokens": False, "split_special_tokens": True}
        words: list[list[int]] = self.tokenizer(texts, **options)["input_ids"]
        cls, sep, pad = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, self.tokenizer.pad_token_id
        ids = [[cls, *own[: self.max_length - 2], sep] for own in words]
        lengths = torch.tensor([len(own) for own in ids])
        input_ids = torch.tensor([own + [pad] * (self.max_length - len(own)) for own in ids])  # (B, T)
        attention_mask = (torch.arange(self.max_length) < lengths[:, None]).long()  # (B, T)
        counts = torch.tensor([row.counts for row in rows])
        return Batch(
            pixel_values=stacked(pixels),
            image_index=torch.tensor([row.image for row in rows]),
            qformer_input_ids=input_ids,
            qformer_attention_mask=attention_mask,
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=None,
            loss_weight=(attention_mask[:, 1:] * counts[:, None]).float(),
            recipe=torch.tensor([row.recipe for row in rows]),
            group=torch.tensor([row.group for row in rows]),
            place=torch.tensor([row.place for row in rows]),
            uids=tuple(row.example.uid for row in rows),
            truncated=tuple(len(own) > self.max_length - 2 for own in words),
            template=tuple(row.template for row in rows),
            tokens=tuple((0, len(own) if row.counts else 0) for row, own in zip(rows, ids, strict=True)),
        )


AnyCollator = Collator | CaptionCollator
