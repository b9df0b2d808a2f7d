"""The instruction-aware Q-Former (paper, section 2.4 and Figure 3).

A few learned queries read an image for a language model. In every layer queries and instruction attend to
each other, so the instruction decides what the queries look for; in every second layer the queries, and they
alone, attend to the image. Only the queries come out. Without the instruction this is BLIP-2's Q-Former, the
paper's baseline. BLIP-2's first stage (`stage1.py`) reads the text as well, under masks of its own.

The numbers are BERT-base's (LAVIS `blip2_models/Qformer.py`): post-norm, exact GELU, LayerNorm eps 1e-12.

Shapes: B rows, Q queries, T text tokens, S = Q + T, P image tokens, H heads, D width, V vision width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructblip.config.model import QFormerConfig

TEXT_BRANCH = ("word_embeddings", "position_embeddings", "text_ffn")  # absent when not instruction-aware


class Attention(nn.Module):
    """Multi-head attention of `hidden_states` to `context`, then residual and norm.

    Self-attention when both are the same sequence, cross-attention when `context` is the image.
    """

    def __init__(self, config: QFormerConfig, context_size: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_size, width)
        self.value = nn.Linear(context_size, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) attending to (B, M, C); `mask` (B, 1, 1 or N, M) is True where `context` may be read."""
        attended = F.scaled_dot_product_attention(
            self._split_heads(self.query(hidden_states)),
            self._split_heads(self.key(context)),
            self._split_heads(self.value(context)),
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )  # (B, H, N, D/H)
        attended = attended.transpose(1, 2).flatten(2)  # (B, N, D)
        return self.norm(hidden_states + self.dropout(self.out(attended)))

    def weights(self, hidden_states: Tensor, context: Tensor) -> Tensor:
        """(B, H, N, M), what `forward` without mask and dropout weighs the values of `context` by."""
        query, key = self._split_heads(self.query(hidden_states)), self._split_heads(self.key(context))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.size(-1))  # (B, H, N, M)
        return scores.float().softmax(dim=-1)

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, N, D/H)


class FeedForward(nn.Module):
    """Two linear maps with a GELU between, then residual and norm."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        inner = F.gelu(self.up(hidden_states))  # (B, N, intermediate)
        return self.norm(hidden_states + self.dropout(self.down(inner)))


class Layer(nn.Module):
    """One layer of Figure 3: self-attention of all, cross-attention of the queries, two feed-forwards."""

    def __init__(self, config: QFormerConfig, index: int, vision_width: int, text_is_read: bool) -> None:
        super().__init__()
        sees_image = index % config.cross_attention_frequency == 0
        self.self_attention = Attention(config, context_size=config.hidden_size)
        self.cross_attention = Attention(config, context_size=vision_width) if sees_image else None
        self.query_ffn = FeedForward(config)
        self.text_ffn = FeedForward(config) if config.instruction_aware else None
        # Where nothing reads the text any more, its feed-forward cannot learn. It is kept because published
        # checkpoints hold it.
        self.text_is_read = text_is_read
        if self.text_ffn is not None and not text_is_read:
            self.text_ffn.requires_grad_(False)

    def forward(
        self, queries: Tensor, text: Tensor, image_embeds: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Queries (B, Q, D) and text (B, T, D), T = 0 without an instruction -> the same, one layer on."""
        sequence = torch.cat((queries, text), dim=1)  # (B, S, D)
        sequence = self.self_attention(sequence, sequence, mask)
        queries, text = sequence.split((queries.size(1), text.size(1)), dim=1)  # (B, Q, D), (B, T, D)
        if self.cross_attention is not None:
            queries = self.cross_attention(queries, image_embeds)
        if self.text_ffn is not None and self.text_is_read:
            text = self.text_ffn(text)
        return self.query_ffn(queries), text


class QFormer(nn.Module):
    """Queries in, queries out: what the image holds that matters to the instruction."""

    def __init__(self, config: QFormerConfig, vision_width: int, text_is_read: bool = False) -> None:
        """`vision_width` is V; `text_is_read` is for `both`. Weights are drawn as BERT's, N(0, `initializer_range`)."""
        super().__init__()
        self.config = config
        if config.instruction_aware:
            self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        last = config.num_hidden_layers - 1
        self.layers = nn.ModuleList(
            Layer(config, index, vision_width, text_is_read or index < last) for index in range(last + 1)
        )
        self.apply(self._init_weights)

    def forward(
        self, query_embeds: Tensor, encoder_hidden_states: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """What the queries have read.

        Args:
            query_embeds: (1 or B, Q, D), the learned queries.
            encoder_hidden_states: (B, P, V), normalised image tokens, all of them visible.
            input_ids, attention_mask: (B, T), the instruction; not looked at unless `instruction_aware`.

        Returns:
            (B, Q, D).

        Raises:
            ValueError: the instruction is longer than the position table.
        """
        queries = query_embeds.expand(len(encoder_hidden_states), -1, -1)  # (B, Q, D)
        if self.config.instruction_aware:
            text = self._embed_text(input_ids)  # (B, T, D)
            visible = F.pad(attention_mask.bool(), (queries.size(1), 0), value=True)  # (B, S), all queries
            mask = visible[:, None, None]  # (B, 1, 1, S)
        else:
            text, mask = queries[:, :0], None  # BLIP-2: nothing to tell the queries, (B, 0, D)
        return self._read(queries, text, encoder_hidden_states, mask)[0]

    def both(
        self, query_embeds: Tensor, encoder_hidden_states: Tensor, input_ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries (B, Q, D) and text (B, T, D), each having read of both what `mask` (B, 1, S, S) lets it."""
        queries = query_embeds.expand(len(encoder_hidden_states), -1, -1)  # (B, Q, D)
        return self._read(queries, self._embed_text(input_ids), encoder_hidden_states, mask)

    def _read(
        self, queries: Tensor, text: Tensor, encoder_hidden_states: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        sequence = self.dropout(self.norm(torch.cat((queries, text), dim=1)))  # (B, S, D)
        queries, text = sequence.split((queries.size(1), text.size(1)), dim=1)
        for layer in self.layers:
            queries, text = layer(queries, text, encoder_hidden_states, mask)
        return queries, text

    def _embed_text(self, input_ids: Tensor) -> Tensor:
        """Words and their positions, counted from the first word: the queries before them have none."""
        length, limit = input_ids.size(1), self.config.max_position_embeddings
        if length > limit:
            raise ValueError(
                f"the instruction has {length} tokens and the Q-Former {limit} positions; "
                "cut it to model.qformer.max_length"
            )
        positions = torch.arange(length, device=input_ids.device)  # (T,)
        return self.word_embeddings(input_ids) + self.position_embeddings(positions)  # (B, T, D)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
