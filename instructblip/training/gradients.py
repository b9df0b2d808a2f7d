"""Who pulls at the Q-Former: each dataset's share of the gradient, taken where the picture enters the language model.

A row's own part there is dL / d query_embeds (F*Q, D), which one backward gives for every row at no cost. A dataset's
share is the sum of its rows' squared norms over that of all rows. It says how hard a dataset pulls, not whether they
all pull together: where datasets disagree, their gradients on the weights cancel, and the shares do not show it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructblip.data.collate import Batch
from instructblip.models.checkpoint import Trained
from instructblip.models.instructblip import InstructBlip


class QueryGradients:
    """The squared norms of the last backward through `model`; nothing is kept where no gradient comes by.

    BLIP-2's first stage has no language model that a picture could enter.
    """

    def __init__(self, model: Trained) -> None:
        self._frames: Tensor | None = None  # (B*F,) one for each frame of each row
        if isinstance(model, InstructBlip):
            model.language_projection.register_forward_hook(self._watch)

    def by_recipe(self, batch: Batch, recipes: int) -> Tensor:
        """(2R,): the sum of each recipe's rows, then that of all rows, R times; zeros where nothing came by."""
        sums = batch.recipe.new_zeros(recipes, dtype=torch.float)
        if self._frames is not None:
            sums = sums.index_add(0, batch.recipe, self._frames.view(len(batch.recipe), -1).sum(1))
        self._frames = None
        return torch.cat([sums, sums.sum().expand(recipes)])

    def _watch(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(self._keep)

    def _keep(self, gradient: Tensor) -> None:
        self._frames = gradient.detach().float().square().flatten(1).sum(1)
