"""Several turns of one row, each apart from the others: what a causal model reads at once as if it read each alone.

Shapes: B rows, S positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instructblip.models.masks import additive


def turn_mask(turn: Tensor, attention_mask: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
    """(B, 1, S, S): 0 where a position sees another, the lowest number elsewhere.

    `turn` (B, S) is 0 of what every turn reads, else the number of the turn. A layer with a sliding `window` sees only
    positions less than that away.
    """
    keys, queries = turn[:, None, :], turn[:, :, None]
    visible = ((keys == 0) | (keys == queries)) & attention_mask.bool()[:, None, :]  # (B, S, S)
    visible &= torch.ones_like(visible[0]).tril()
    if window is not None:
        at = turn_positions(turn, attention_mask)  # (B, S)
        visible &= at[:, :, None] - at[:, None, :] < window
    return additive(visible, dtype)


def turn_positions(turn: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, S): every turn goes on where turn 0 ends. The tokens of a turn stand together; rows are right-padded."""
    at = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)  # (B, S)
    begins = turn != F.pad(turn, (1, 0))[:, :-1]
    first = torch.where(begins, at, 0).cummax(dim=1).values
    shared = ((turn == 0) & attention_mask.bool()).sum(dim=1, keepdim=True)  # (B, 1)
    return torch.where(turn > 0, at - first + shared, at)
