"""What the loader hands over: pinned, on its way to the device; and its workers, from their start to their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from instructblip.config.training import TrainConfig
from instructblip.training.datamodule import StepData, collator, training_set
from tests.conftest import ROOT, World, run_program

Tiny = Callable[..., TrainConfig]


def data(config: TrainConfig) -> StepData:
    made = StepData(config, training_set(config), collator(config, encoder_decoder=False), first=0)
    made.trainer = SimpleNamespace(global_rank=0, world_size=1, accelerator=None)
    return made


def test_every_tensor_of_a_step_is_pinned(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's loader passes over a dataclass that has no `pin_memory`."""
    step = data(tiny("trainer.micro_batch_size=4")).steps(0, 1).read(0)
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: pinned.append(self) or self.clone())
    given = pin_memory(step)
    assert given.number == 0 and given.batches[0].uids == step.batches[0].uids
    fields = [value for batch in step.batches for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(step.batches) == 2 and len(fields) > 10
    assert {id(tensor) for tensor in fields} == {id(tensor) for tensor in pinned}


def test_micro_batches_are_padded_to_their_own_longest_row(tiny: Tiny) -> None:
    config = tiny("trainer.micro_batch_size=2", "group_size=1")
    batches = [batch for number in range(4) for batch in data(config).steps(0, 4).read(number).batches]
    assert all(int(batch.attention_mask.sum(1).max()) == batch.input_ids.shape[1] for batch in batches)
    assert all(int(batch.qformer_attention_mask.sum(1).max()) == batch.qformer_input_ids.shape[1] for batch in batches)
    assert len({batch.input_ids.shape[1] for batch in batches}) > 1


def test_augmentations_are_set_for_one_recipe_alone(tiny: Tiny) -> None:
    config = tiny("transforms.crop_scale=[0.5,1.0]", "transforms.rand_augment=2")
    config.transforms.recipes = {"vqav2": {"flip": 0.25, "crop_scale": [1.0, 1.0]}}
    made = data(config)
    own = dict(zip(made.data.names, made.reader.transforms, strict=True))
    assert (own["vqav2"].flip, own["vqav2"].crop_scale, own["vqav2"].rand_augment) == (0.25, [1.0, 1.0], 2)
    assert (own["coco_caption"].flip, own["coco_caption"].crop_scale) == (0.0, [0.5, 1.0])
    config.transforms.recipes = {"vqav2": {"filp": 0.0}}
    with pytest.raises(ValueError, match=r"transforms\.recipes\.vqav2 sets filp; it may set crop_scale, flip"):
        data(config)
    config.transforms.recipes = {"vqa2": {"flip": 0.0}}
    with pytest.raises(ValueError, match=r"unknown recipe in transforms\.recipes 'vqa2'; did you mean 'vqav2'"):
        data(config)


@pytest.mark.system
@pytest.mark.timeout(600)
def test_thirteen_datasets_give_their_first_step_at_once(world: World, tiny: Tiny, tmp_path: Path) -> None:
    paths = [f"paths.raw={world.raw}", f"paths.data={tmp_path}/data"]
    done = run_program("prepare.py", "recipe=held_in", "check_counts=false", *paths, timeout=500)
    assert done.returncode == 0, done.stderr
    for workers in range(5):
        config = tiny("mixture.recipes=held_in", f"trainer.num_workers={workers}", paths[1])
        began = time.perf_counter()
        made = data(config)
        steps = iter(made.train_dataloader())
        assert next(steps).number == 0 and len(made.data.tables) == 13
        assert time.perf_counter() - began < 3, f"{workers} workers"
        del steps


def descendants(process: int) -> set[int]:
    children = {
        int(child)
        for path in Path(f"/proc/{process}/task").glob("*/children")
        for child in path.read_text().split()
    }  # fmt: skip
    return children.union(*map(descendants, children))


@pytest.mark.system
def test_workers_die_with_the_run(world: World, tmp_path: Path) -> None:
    command = [
        sys.executable, "train.py", "experiment=miniature/scratch", "steps=100000", "trainer.num_workers=3", "trainer.log_every=1",
        "name=run", f"paths.data={world.data}", f"paths.runs={tmp_path}",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "run/metrics.csv"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") > 3):
            time.sleep(0.1)
        workers = descendants(process.pid)
        assert len(workers) >= 3 and all(Path(f"/proc/{worker}").exists() for worker in workers)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20  # torch's workers look for their parent every 5 seconds
    while time.monotonic() < deadline and any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.1)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    print(f"gone after {time.monotonic() - deadline + 20:.1f} s")
