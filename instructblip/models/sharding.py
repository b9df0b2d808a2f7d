"""A tensor may be whole on every process, or a DTensor of which each process holds some rows (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it, on the cpu; the memory may be the tensor's own. Called by all processes together."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether processes hold only parts of some, so that all of them have to compute together."""
    return any(isinstance(parameter, DTensor) for parameter in parameters)


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor laid out as `like` is: on its device, of a DTensor the rows of this process.

    Raises ValueError when the shapes differ.
    """
    if tensor.shape != like.shape:
        raise ValueError(f"a tensor of {tuple(tensor.shape)} for one of {tuple(like.shape)}")
    moved = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return moved
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)  # all have it already
