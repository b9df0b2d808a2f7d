"""Where the queries look: the cross-attention of a forward pass, read beside it.

Shapes: B rows, K layers that see the image, Q queries, H heads, P image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instructblip.models.qformer import QFormer


@dataclass(frozen=True)
class Attended:
    """Cross-attention to one picture under one instruction, the mean over heads.

    `weights` (K, Q, P): each row sums to 1 over all image tokens. `layers` (K) are counted from 0 among all layers.
    `grid` is rows and columns of the patches, which are the last tokens, row by row; what stands before them is CLS.
    """

    weights: Tensor
    layers: tuple[int, ...]
    grid: tuple[int, int]

    @property
    def maps(self) -> Tensor:
        """(K, Q, rows, columns): what each patch has of a query's attention. CLS has the rest."""
        return self.weights[..., self._special :].unflatten(-1, self.grid)

    @property
    def cls_share(self) -> Tensor:
        """(K, Q): what the token that is no patch has, 0 where the encoder has none."""
        return self.weights[..., : self._special].sum(-1)

    @property
    def _special(self) -> int:
        return self.weights.size(-1) - self.grid[0] * self.grid[1]


@contextmanager
def watched(qformer: QFormer) -> Iterator[dict[int, Tensor]]:
    """Within it, a forward pass leaves here (B, Q, P) of each layer that sees the image, by the layer's number.

    Nothing of the pass is changed: the weights are computed once more by the layer's own maps, from the very tensors
    the layer was given.
    """
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Callable[[Any, Any, Any], None]:
        def hook(attention: Any, given: Any, _: Any) -> None:
            seen[number] = attention.weights(*given).mean(dim=1)  # (B, Q, P)

        return hook

    crossing: dict[int, Any] = {number: layer.cross_attention for number, layer in enumerate(qformer.layers)}
    hooks = [
        attention.register_forward_hook(keep(number)) for number, attention in crossing.items() if attention is not None
    ]
    try:
        yield seen
    finally:
        for each in hooks:
            each.remove()


def attended(seen: Mapping[int, Tensor], grid: tuple[int, int], row: int = 0) -> Attended:
    """What one row of the last pass attended to, in main memory."""
    layers = tuple(sorted(seen))
    weights = torch.stack([seen[layer][row] for layer in layers]).float().cpu()  # (K, Q, P)
    assert weights.size(-1) >= grid[0] * grid[1], f"{weights.size(-1)} image tokens are no {grid} patches"
    return Attended(weights, layers, grid)
