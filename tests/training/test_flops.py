"""The FLOP formula equals torch's own counter on the real classes; peaks are found by a driver's name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from instructblip.config.model import LoraConfig, ModelConfig
from instructblip.data.collate import Batch
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.skeleton import skeleton
from instructblip.training.devices import peak
from instructblip.training.flops import Counts, StepFlops
from tests.conftest import composed

ROWS, TEXT, PROMPT, RESPONSE = 3, 7, 6, 5
COUNTS = Counts(ROWS, ROWS, ROWS * TEXT, ROWS * PROMPT, ROWS * RESPONSE)


def counted(model: InstructBlip, rows: int = ROWS, frames: int = 1, images: int | None = None) -> tuple[float, float]:
    """Forward and backward of rows of one length, as torch counts them."""
    size, seq2seq = model.vision.image_size, model.llm.model.config.is_encoder_decoder
    length = PROMPT if seq2seq else PROMPT + RESPONSE
    labels = torch.full((rows, RESPONSE if seq2seq else length), 5)
    if not seq2seq:
        labels[:, :PROMPT] = -100
    shape = (images or rows, 3, size, size) if frames == 1 else (images or rows, frames, 3, size, size)
    inputs: dict[str, Any] = {
        "pixel_values": torch.zeros(shape, dtype=torch.uint8),
        "qformer_input_ids": torch.ones(rows, TEXT, dtype=torch.long),
        "qformer_attention_mask": torch.ones(rows, TEXT, dtype=torch.long),
        "input_ids": torch.full((rows, length), 5),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
        "image_index": torch.zeros(rows, dtype=torch.long) if images else None,
    }
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel of the CPU is not counted
        with FlopCounterMode(display=False) as forward:
            loss = model(**inputs, labels=labels).sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def tiny(name: str, **changes: Any) -> ModelConfig:
    config = composed("train", "experiment=miniature/scratch", f"model={name}").model
    assert isinstance(config, ModelConfig)
    return replace(config, **{"unfreeze": [], **changes})


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_t5"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"unfreeze": ["vision", "llm"]}, {"freeze_ln_vision": True}, {"instruction_aware": False}],
    ids=["frozen", "all learn", "ln_vision frozen", "BLIP-2"],
)
def test_formula_equals_torchs_counter(name: str, changes: dict[str, Any]) -> None:
    config = tiny(name, **{k: v for k, v in changes.items() if k != "instruction_aware"})
    if "instruction_aware" in changes:
        config.qformer.instruction_aware = False
    model = build(config, seed=0)
    forward, backward = counted(model)
    parts = StepFlops(model).parts(COUNTS).values()
    assert sum(part.forward for part in parts) == forward
    assert sum(part.backward for part in parts) == backward


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_t5"])
def test_adapters_clips_and_shared_pictures_are_counted(name: str) -> None:
    target = "llm.q_proj" if name == "tiny_llama" else "llm.q"
    model = build(tiny(name, lora=LoraConfig(targets=[target], rank=4, dropout=0.0)), seed=0)
    assert StepFlops(model)(COUNTS) == pytest.approx(sum(counted(model)), rel=0.01)
    model = build(tiny(name), seed=0)
    clips = replace(COUNTS, pictures=2 * ROWS, frames=2)
    assert StepFlops(model)(clips) == sum(counted(model, frames=2))
    shared = replace(COUNTS, pictures=1)
    assert StepFlops(model)(shared) == sum(counted(model, images=1))


def test_a_sample_of_the_four_models_costs_what_was_counted_with_torch() -> None:
    """TFLOP at 32 queries + 32 + 32 tokens; Vicuna-7B: 520.7 + 18.50 + 1256.6 forward, 1298.4 backward (GFLOP)."""
    counts = Counts(1, 1, 32, 32, 32)
    flops = StepFlops(skeleton(composed("train", "experiment=vicuna7b", "paths.weights=w").model)).parts(counts)
    assert flops["vision"].forward == pytest.approx(520.7e9, rel=1e-3)
    assert flops["qformer"].forward == pytest.approx(18.5e9, rel=0.02)  # the last text FFN is not computed here
    assert flops["llm"].forward == pytest.approx(1256.6e9, rel=1e-3)
    assert flops["vision"].backward == 0
    assert sum(part.backward for part in flops.values()) == pytest.approx(1298.4e9, rel=1e-3)


def test_counts_of_a_batch_leave_padding_and_fillers_out() -> None:
    batch = Batch(
        pixel_values=torch.zeros(2, 3, 8, 8, dtype=torch.uint8), image_index=torch.tensor([0, 0, 1]),
        qformer_input_ids=torch.ones(3, 4), qformer_attention_mask=torch.tensor([[1, 1, 1, 0]] * 3),
        input_ids=torch.ones(3, 9), attention_mask=torch.ones(3, 9), labels=None, loss_weight=None,
        recipe=torch.zeros(3), group=torch.zeros(3), place=torch.arange(3), uids=("a", "b", "c"), tokens=((4, 2), (5, 3), (4, 1)),
    )  # fmt: skip
    assert Counts.of(batch) == Counts(2, 3, 9, 13, 6)
    assert Counts.of(replace(batch, tokens=((0, 0),) * 3)) == Counts(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "tera"),
    [("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.5),
     ("NVIDIA H200", 989.4), ("NVIDIA L4", 121), ("NVIDIA L40S", 362.05), ("NVIDIA GeForce RTX 4090", 165.2)],
)  # fmt: skip
def test_peaks_by_the_drivers_name(name: str, tera: float) -> None:
    assert peak(name) == tera * 1e12


def test_an_unknown_device_has_no_peak() -> None:
    assert peak("AMD EPYC 9654") is None
