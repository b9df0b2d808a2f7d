"""The predicted peak of a step beside a GPU's own: full-size weights are drawn on the device, one step is taken.

`python -m experiments.benchmarks.memory experiment=vicuna7b [trainer.micro_batch_size=4 ...]`; on a machine without a
GPU it prints the prediction, and `not run` for what would be measured.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor

from instructblip.config.training import TrainConfig
from instructblip.models.instructblip import InstructBlip
from instructblip.models.skeleton import skeleton
from instructblip.training.optim import optimizer
from instructblip.training.plan.memory import Setting, Texts
from instructblip.training.plan.proposal import configured, held, longest, peak

MEAN = Texts(17, 19)  # of the paper's mixture (estimated)


def drawn(config: TrainConfig, device: torch.device) -> InstructBlip:
    """The real classes at full size with random weights, of the dtypes that a run would hold."""
    model = skeleton(config.model)
    for part, dtype in held(config).items():
        model.get_submodule(part).to(dtype)
    model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
        for buffer in model.buffers():
            buffer.zero_()  # rotary frequencies and pixel statistics: their values cost no memory
        model.vision.std.fill_(1.0)
    return model


def inputs(model: InstructBlip, rows: int, texts: Texts, device: torch.device) -> dict[str, Tensor]:
    """A micro-batch without padding."""
    prompt, response, size = int(texts.prompt), int(texts.response), model.vision.image_size
    seq2seq = bool(model.llm.model.config.is_encoder_decoder)
    length = prompt if seq2seq else prompt + response
    labels = torch.full((rows, response if seq2seq else length), 5, device=device)
    if not seq2seq:
        labels[:, :prompt] = -100
    read = min(prompt + 2, 128)
    return {
        "pixel_values": torch.zeros(rows, 3, size, size, dtype=torch.uint8, device=device),
        "qformer_input_ids": torch.ones(rows, read, dtype=torch.long, device=device),
        "qformer_attention_mask": torch.ones(rows, read, dtype=torch.long, device=device),
        "input_ids": torch.full((rows, length), 5, device=device),
        "attention_mask": torch.ones(rows, length, dtype=torch.long, device=device),
        "labels": labels,
    }


def stepped(model: InstructBlip, config: TrainConfig, texts: Texts, device: torch.device) -> None:
    """Two steps: the first makes the optimizer's state, the second has all at once."""
    made = optimizer(model.named_parameters(), config.optim)
    batch = inputs(model, config.trainer.micro_batch_size, texts, device)
    for _ in range(2):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(**batch).sum()
        loss.backward()
        made.step()
        made.zero_grad()


def measured(config: TrainConfig, texts: Texts) -> float | None:
    """Bytes at the height of a step; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    stepped(drawn(config, device), config, texts, device)
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()  # the context
    return float(torch.cuda.max_memory_allocated() + beside)


def report(config: TrainConfig) -> list[str]:
    """A line for mean and for longest texts: predicted, measured, difference."""
    setting = replace(configured(config), strategy="single", gpus=1)
    lines = [f"{config.model.name}, micro-batch {setting.micro_batch_size}, {setting.precision.value}"]
    for name, texts in {"mean": MEAN, "longest": longest(config)}.items():
        lines.append(_line(config, setting, name, texts))
    return lines


def _line(config: TrainConfig, setting: Setting, name: str, texts: Texts) -> str:
    predicted, real = peak(skeleton(config.model), config, setting, texts).total, measured(config, texts)
    found = "not run: no GPU" if real is None else f"measured {real / 1e9:.2f} GB, {predicted / real - 1:+.1%}"
    return f"  {name} texts {texts.prompt:g} + {texts.response:g}: predicted {predicted / 1e9:.2f} GB; {found}"


if __name__ == "__main__":
    composed = import_module("tests.conftest").composed
    print("\n".join(report(composed("train", *sys.argv[1:]))))
