"""What a run carries: gathered from any layout, restored on any other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from instructblip.training.state import optimizer_state, restore_optimizer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()  # 5 rows or 3 do not divide by 2


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()


def in_processes(world: int, body: Callable[..., None], *arguments: object) -> None:
    """`body(rank, ...)` in forked processes that are a gloo group; an error in one is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_joined, (world, folder, body, arguments), nprocs=world, start_method="fork")


def _joined(rank: int, world: int, folder: str, body: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    body(rank, *arguments)
    dist.destroy_process_group()


def sharded_half(rank: int, folder: Path) -> None:
    """Two processes go on from one, sharded, and one goes on from them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from instructblip.models.sharding import whole

    model = network()
    model.load_state_dict(torch.load(folder / "weights"))
    for layer in model:
        fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = adamw(model)
    restore_optimizer(model, optimizer, torch.load(folder / "optimizer"))
    trained(model, optimizer, range(3, 5))
    weights = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    torch.save((weights, optimizer_state(model, optimizer)), folder / f"rank{rank}")


def test_one_process_to_two_that_shard_and_back(tmp_path: Path) -> None:
    """Tolerance: FSDP2 takes the mean of two equal gradients, the rest is the same arithmetic in float64."""
    model = network()
    optimizer = adamw(model)
    trained(model, optimizer, range(3))
    torch.save(model.state_dict(), tmp_path / "weights")
    torch.save(optimizer_state(model, optimizer), tmp_path / "optimizer")
    in_processes(2, sharded_half, tmp_path)
    ends: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = [torch.load(tmp_path / f"rank{r}") for r in range(2)]
    trained(model, optimizer, range(3, 5))
    for weights, moments in ends:
        for gathered, own in ((weights, model.state_dict()), (moments, optimizer_state(model, optimizer))):
            assert gathered.keys() == own.keys()
            assert all(torch.allclose(gathered[name], own[name], rtol=0, atol=1e-14) for name in own)
    assert ends[0][1]["exp_avg.0.weight"].shape == (6, 5) and ends[0][1]["step.0.weight"] == 5
    again = network()
    again.load_state_dict(ends[0][0])
    resumed = adamw(again)
    restore_optimizer(again, resumed, ends[0][1])
    trained(again, resumed, range(5, 7))
    trained(model, optimizer, range(5, 7))
    assert all(
        torch.allclose(again.state_dict()[name], t, rtol=0, atol=1e-14) for name, t in model.state_dict().items()
    )


def test_moments_of_something_else_are_refused() -> None:
    model = network()
    optimizer = adamw(model)
    trained(model, optimizer, range(1))
    state = optimizer_state(model, optimizer)
    with pytest.raises(ValueError, match=r"1 tensors of nothing that learns: \['exp_avg.3.weight'\]"):
        restore_optimizer(model, adamw(model), {**state, "exp_avg.3.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"of 0.bias does not fit: a tensor of \(5,\) for one of \(6,\)"):
        restore_optimizer(model, adamw(model), {**state, "exp_avg.0.bias": torch.zeros(5)})
    restored = adamw(model)
    restore_optimizer(model, restored, state)
    next(iter(restored.state.values()))["exp_avg"].zero_()
    assert state["exp_avg.0.weight"].any(), "a copy of its own"
