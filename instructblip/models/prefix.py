"""A prompt that a language model has read once, for all that is written or ranked after it.

Shapes: N rows, S positions of the prompt (queries and text) and of what followed, D width, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache


@dataclass(frozen=True)
class Prefix:
    """What comes next, and what later tokens must see of what came before; the model extends `cache` in place."""

    logits: Tensor  # (N, W) of the next token
    cache: Any  # of transformers, dynamic; an encoder-decoder's holds the attention to the prompt too
    attention_mask: Tensor  # (N, S); of an encoder-decoder the encoder's
    encoded: Tensor | None = None  # (N, S, D) an encoder-decoder's prompt

    def select(self, rows: Tensor) -> Prefix:
        """A prefix of its own for each index in `rows` (M,), which may repeat, drop and reorder rows."""
        return replace(
            self,
            logits=self.logits[rows],  # (M, W)
            cache=_select(self.cache, rows),
            attention_mask=self.attention_mask[rows],  # (M, S)
            encoded=None if self.encoded is None else self.encoded[rows],  # (M, S, D)
        )


Step = Callable[[Prefix, Tensor], Prefix]  # one more token (N, 1) after each row


def _select(cache: Any, rows: Tensor) -> Any:
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(
            _select(cache.self_attention_cache, rows), _select(cache.cross_attention_cache, rows)
        )
    chosen = DynamicCache()
    for index, layer in enumerate(cache.layers):
        chosen.update(layer.keys[rows], layer.values[rows], index)
    return chosen
