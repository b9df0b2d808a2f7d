"""Several turns of one row, each apart from the others: what a causal model reads at once as if it read each alone.

Shapes: B rows, S positions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from instructblip.models.ranking import windows


def turn_masks(turn: Tensor, attention_mask: Tensor, model: Any) -> Tensor | dict[str, Tensor]:
    """The mask for a causal model of `transformers`, or one for each kind of its layers."""
    dtype = model.get_input_embeddings().weight.dtype
    masks = {kind: turn_mask(turn, attention_mask, dtype, window) for kind, window in windows(model.config).items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))


def turn_mask(turn: Tensor, attention_mask: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
    """(B, 1, S, S): 0 where a position sees another, the lowest number elsewhere.

    `turn` (B, S) is 0 of what every turn reads, else the number of the turn. Numbers, because eager attention adds a
    boolean mask as 0 and 1. A layer with a sliding `window` sees only positions less than that away.
    """
    keys, queries = turn[:, None, :], turn[:, :, None]
    visible = ((keys == 0) | (keys == queries)) & attention_mask.bool()[:, None, :]  # (B, S, S)
    visible &= torch.ones_like(visible[0]).tril()
    if window is not None:
        at = turn_positions(turn, attention_mask)  # (B, S)
        visible &= at[:, :, None] - at[:, None, :] < window
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]


def turn_positions(turn: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, S): every turn goes on where turn 0 ends. The tokens of a turn stand together; rows are right-padded."""
    at = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)  # (B, S)
    begins = turn != F.pad(turn, (1, 0))[:, :-1]
    first = torch.where(begins, at, 0).cummax(dim=1).values
    shared = ((turn == 0) & attention_mask.bool()).sum(dim=1, keepdim=True)  # (B, 1)
    return torch.where(turn > 0, at - first + shared, at)
