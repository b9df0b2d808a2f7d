"""Attention masks of our own for the causal models of `transformers`: what each kind of their layers may see.

Shapes: B rows, N positions that look, S positions that are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, N, S) as (B, 1, N, S) to be added to the attention scores: 0 where something is seen, else the lowest number.

    Numbers, because eager attention adds a boolean mask as 0 and 1.
    """
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]


def layer_masks(model: Any, mask: Callable[[torch.dtype, int | None], Tensor]) -> Tensor | dict[str, Tensor]:
    """`mask` of the model's dtype and a layer's window; where layers are of several kinds, one for each."""
    dtype = model.get_input_embeddings().weight.dtype
    masks = {kind: mask(dtype, window) for kind, window in windows(model.config).items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))


def windows(config: Any) -> dict[str, int | None]:
    """The sliding window of each kind of layer of a causal model, None where a layer sees everything.

    Raises:
        ValueError: a kind of layer that no mask can turn into a tree (recurrent, chunked).
    """
    window = getattr(config, "sliding_window", None)
    alone = "full_attention" if window is None else "sliding_attention"
    known = {"full_attention": None, "sliding_attention": window}
    kinds = dict.fromkeys(getattr(config, "layer_types", None) or [alone])
    if unknown := [kind for kind in kinds if kind not in known]:
        raise ValueError(
            f"candidates cannot be ranked as a tree on the {', '.join(unknown)} layers of {config.model_type}; "
            f"only on {' and '.join(known)}"
        )
    return {kind: known[kind] for kind in kinds}
