"""BLIP-2's two stages as runs: one update for every topology, what is refused, and the way to instruction tuning."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instructblip.choices import Objective, Wording
from instructblip.config.training import TrainConfig
from instructblip.data.captions import CaptionCollator
from instructblip.data.collate import Batch, Row
from instructblip.data.steps import FILLER
from instructblip.data.templates import Example
from instructblip.models.stage1 import Stage1, build_stage1
from instructblip.models.tokenizers import caption_tokenizer
from instructblip.models.weights import is_text
from instructblip.training import objectives
from instructblip.training.callbacks.metrics import read_metrics
from instructblip.training.checkpoint import last_checkpoint
from instructblip.training.datamodule import StepData, collator, training_set
from instructblip.training.run import load_model
from tests.conftest import composed, run_ranks

from .test_training import Tiny, losses, same, stopped_at, train

STAGE1 = ("objective=stage1", "mixture.recipes=[coco_caption]", "model.unfreeze=[vision]", "trainer.micro_batch_size=8")


def file(run: Path) -> Path:
    found = last_checkpoint(run)
    assert found
    return found.folder / "model.safetensors"


def test_the_published_numbers() -> None:
    """arXiv 2301.12597, section 3.4."""
    one, two = (composed("train", f"experiment=[vicuna7b,align/{stage}]") for stage in ("stage1", "stage2"))
    assert (one.objective, two.objective) == (Objective.stage1, Objective.instruct)
    assert (one.steps, one.batch_size, two.steps, two.batch_size) == (250_000, 1680, 80_000, 1920)
    assert (one.optim.lr, one.optim.betas, one.optim.warmup_steps, two.optim.min_lr) == (1e-4, [0.9, 0.98], 2000, 5e-5)
    assert one.model.qformer.instruction_aware and not two.model.qformer.instruction_aware
    assert one.model.qformer.vocab_size == 30523 and one.model.stage1.temperature == 0.07
    assert one.model.init is None and two.wording.style is Wording.plain


def test_captions_are_cut_on_the_right_and_padded_to_one_width() -> None:
    config = composed("train", "experiment=miniature/scratch").model.qformer
    tokenizer = caption_tokenizer(config)
    pixels = [torch.zeros(3, 4, 4, dtype=torch.uint8)] * 2
    texts = ["red circle", "red circle red circle red circle red circle"]
    rows = [Row(Example("Say:", text, "r", str(i), "t"), i, place=7 - i, counts=not i) for i, text in enumerate(texts)]
    batch = CaptionCollator(tokenizer, 6).training(rows, pixels)
    red, circle = tokenizer("red circle", add_special_tokens=False)["input_ids"]
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    assert batch.qformer_input_ids.tolist() == [
        [cls, red, circle, sep, pad, pad], [cls, red, circle, red, circle, sep]
    ]  # fmt: skip
    assert batch.qformer_attention_mask.sum(1).tolist() == [4, 6]
    assert batch.loss_weight is not None and batch.loss_weight.tolist() == [[1, 1, 1, 0, 0], [0] * 5]
    assert batch.place.tolist() == [7, 6] and batch.truncated == (False, True) and batch.tokens == ((0, 4), (0, 0))
    config.vocab_size = len(tokenizer.get_vocab())
    with pytest.raises(ValueError, match=r"leaves no row for \[DEC\]"):
        caption_tokenizer(config)


class Ranks:
    """All-reduce between threads that stand for processes."""

    def __init__(self, world: int) -> None:
        self.values: list[Any] = [None] * world
        self.barrier = threading.Barrier(world, timeout=60)

    def all_reduce(self, rank: int, value: torch.Tensor) -> torch.Tensor:
        self.values[rank] = value
        self.barrier.wait()
        total: torch.Tensor = sum(self.values[1:], self.values[0].clone())
        self.barrier.wait()
        return total


def one_step(config: TrainConfig, model: Stage1, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of step 0 and its gradients, computed by as many ranks as there are batches."""
    ranks = Ranks(len(batches))

    def work(rank: int) -> tuple[torch.Tensor, Stage1]:
        own = copy.deepcopy(model)
        aim = objectives.objective(config, own, [])
        loss, _ = aim.loss(batches[rank], 0, lambda value: ranks.all_reduce(rank, value))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), own

    with ThreadPoolExecutor(len(batches)) as pool:
        done = list(pool.map(work, range(len(batches))))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    grads = {name: sum(own.get_parameter(name).grad for _, own in done) for name in names}  # type: ignore[misc]
    return float(sum(loss for loss, _ in done)), grads  # type: ignore[arg-type]


def test_ranks_that_share_a_step_make_one_update(tiny: Tiny) -> None:
    """Two ranks of unequal parts and a third without a readable picture against one: all losses, gradients, negatives.

    In float64 with dropout off, but features and logits are float32 whatever the model is: hence 1e-6 and 1e-5.
    """
    config = tiny(*STAGE1)
    model = build_stage1(config.model, seed=0).double()
    made = collator(config, encoder_decoder=False)
    data = StepData(config, training_set(config), made, first=0)
    (whole,) = data.steps(0, 1).read(0).batches
    cut = [whole.place < 3, whole.place >= 3]
    parts = [rows_of(whole, mask) for mask in cut]
    blank = torch.zeros(3, 48, 48, dtype=torch.uint8)
    parts.append(made.training([Row(FILLER, 0, counts=False)], [blank]))
    alone, shared = one_step(config, model, [whole]), one_step(config, model, parts)
    assert shared[0] == pytest.approx(alone[0], rel=1e-6)
    for name, gradient in alone[1].items():
        torch.testing.assert_close(shared[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert all(gradient.any() for name, gradient in alone[1].items() if not name.endswith("key.bias"))
    again = one_step(replace(config, seed=config.seed + 1), model, [whole])
    assert again[0] != alone[0], "the negatives follow the seed"


def rows_of(batch: Batch, mask: torch.Tensor) -> Batch:
    """Some rows of a batch; every picture stays, as when a rank has read more than it needs."""
    fields = ("image_index", "qformer_input_ids", "qformer_attention_mask", "loss_weight", "place")
    return replace(batch, **{name: getattr(batch, name)[mask] for name in fields})


def test_a_step_that_does_not_fit_at_once_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"8 captions .* hold 3: set trainer.micro_batch_size=8 or use 3 processes"):
        train(tiny(*STAGE1, "trainer.micro_batch_size=3"))
    with pytest.raises(ValueError, match="per_image=2: a picture would be contrasted with itself"):
        train(tiny(*STAGE1, "per_image=2", "name=two"))


def test_both_stages_and_instruction_tuning_as_runs(tiny: Tiny) -> None:
    """Stage 1, resumed to the bit; stage 2 from it; instruction tuning from the pair, with both backbones frozen."""
    first = train(tiny(*STAGE1, "name=stage1", "trainer.checkpoint_every=2"))
    figures = ("contrast", "matching", "generation")
    assert {f"train/loss/{name}" for name in figures} < set(read_metrics(first / "metrics.csv")[0])
    assert not [name for name in load_file(file(first)) if name.startswith(("llm.", "language_projection."))]
    with pytest.raises(InterruptedError):
        stopped_at(3, tiny(*STAGE1, "name=parts", "trainer.checkpoint_every=2"))
    parts = train(tiny(*STAGE1, "name=parts", "trainer.checkpoint_every=2", "resume=auto"))
    assert same(load_file(file(parts)), load_file(file(first)))
    with pytest.raises(ValueError, match="first stage, which has no language model to ask"):
        load_model(first, "cpu")
    captions = (
        "mixture.recipes=[coco_caption]",
        "model.qformer.instruction_aware=false",
        "model.unfreeze=[llm]",
        "wording.style=plain",
    )
    second = train(tiny(*captions, f"model.init={file(first)}", "name=stage2"))
    pair = f"model.init=[{file(first)},{file(second)}]"
    tuned = train(
        tiny(
            "mixture.recipes=[vqav2]",
            pair,
            "model.unfreeze=[]",
            "name=tuned",
            "steps=1",
            "optim.lr=0",
            "optim.warmup_lr=0",
        )
    )
    begun, early, late = (load_file(file(run)) for run in (tuned, first, second))
    assert all(torch.equal(begun[name], early[name]) for name in begun if is_text(name))
    assert all(torch.equal(begun[name], late[name]) for name in begun if not is_text(name))
    assert {seen.recipe for seen in last_checkpoint(tuned).lineage} == {"coco_caption", "vqav2"}  # type: ignore[union-attr]


@pytest.mark.system
def test_two_processes_make_the_same_update(tiny: Tiny, tmp_path: Path) -> None:
    """Tolerances: float32 sums in another order, three steps at 1e-3 or less a weight."""
    alone = train(tiny(*STAGE1, "name=alone", "steps=3"))
    run_ranks(
        2, "train.py", "experiment=miniature/scratch", *STAGE1, "steps=3", "batch_size=8", "group_size=4", "name=pair",
        "trainer.num_workers=0", "trainer.log_every=1", "trainer.devices=2", "trainer.strategy=ddp",
        f"paths.data={tiny().paths.data}", f"paths.runs={tmp_path}/runs",
    )  # fmt: skip
    pair = tmp_path / "runs/pair"
    assert losses(alone) == pytest.approx(losses(pair), rel=1e-4)
    one, two = load_file(file(alone)), load_file(file(pair))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3
