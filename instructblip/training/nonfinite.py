"""A loss or gradient that is no number: which process, samples and module it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from instructblip.data.collate import Batch

LOSS, GRADIENT = "the loss", "its gradient"  # where every module's output is finite


@dataclass(frozen=True)
class Origin:
    """A micro-batch whose loss or gradient is not finite."""

    rank: int
    micro_batch: int
    uids: list[str]
    module: str  # the first, in the order they are computed, whose output is not finite

    def __str__(self) -> str:
        return f"rank {self.rank}, micro-batch {self.micro_batch}: {self.module} of {', '.join(self.uids)}"


def gradients_finite(parameters: Iterable[nn.Parameter]) -> Tensor:
    """() bool, of what this process holds of the gradients."""
    grads = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    return torch.isfinite(torch.stack(torch._foreach_norm(grads, float("inf")))).all()


def origins(
    model: nn.Module, batches: Sequence[Batch], loss_of: Callable[[int, Batch], Tensor], rank: int
) -> list[Origin]:
    """Computes the micro-batches of this process once more and looks at every module's output.

    All processes call it together, with equally many micro-batches: a sharded model needs them all. Of a sharded model
    the gradients are not looked at, so where its losses are finite every micro-batch is named.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sharded = any(isinstance(parameter, DTensor) for parameter in parameters)
    found, suspects = [], []
    for number, batch in enumerate(batches):
        with torch.set_grad_enabled(not sharded):
            module, loss = _first_bad_module(model, lambda n=number, b=batch: loss_of(n, b))  # type: ignore[misc]
        if module is None and not torch.isfinite(loss):
            module = LOSS
        if module is None and not sharded:
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
            module = GRADIENT if not all(bool(torch.isfinite(g).all()) for g in grads if g is not None) else None
        uids = [uid for uid in batch.uids if uid]
        if module:
            found.append(Origin(rank, number, uids, module))
        suspects.append(Origin(rank, number, uids, GRADIENT))
    return found or (suspects if sharded else [])


def _first_bad_module(model: nn.Module, compute: Callable[[], Tensor]) -> tuple[str | None, Tensor]:
    found: list[str] = []

    def watching(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            value = next((item for item in _flat(output) if isinstance(item, Tensor)), None)
            if not found and value is not None and not bool(torch.isfinite(value).all()):
                found.append(name)

        return look

    hooks = [part.register_forward_hook(watching(name or "the model")) for name, part in model.named_modules()]
    try:
        loss = compute()
    finally:
        for hook in hooks:
            hook.remove()
    return next(iter(found), None), loss


def _flat(output: Any) -> Iterable[Any]:
    """The hidden states of a module come first, whatever it returns beside them."""
    if isinstance(output, dict):
        return output.values()
    return output if isinstance(output, list | tuple) else [output]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
