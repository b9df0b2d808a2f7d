"""How a run would go on N GPUs of M GB with its global batch unchanged, or how much is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from instructblip.choices import Precision, Strategy
from instructblip.config.training import TrainConfig
from instructblip.files import read_json
from instructblip.models.instructblip import InstructBlip
from instructblip.training.plan.memory import RESERVED, Setting, Texts, state, working


@dataclass(frozen=True)
class Peak:
    """Bytes a GPU by part, and their sum at the height of a step."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Proposal:
    setting: Setting
    peak: Peak
    short: float  # bytes that are missing; 0 when it fits


def configured(config: TrainConfig) -> Setting:
    """What the run's own trainer says."""
    trainer = config.trainer
    gpus = trainer.devices * trainer.num_nodes
    strategy = "fsdp" if trainer.strategy is Strategy.fsdp else "ddp" if gpus > 1 else "single"
    return Setting(strategy, gpus, trainer.micro_batch_size, trainer.precision, trainer.activation_checkpointing)


def held(config: TrainConfig) -> dict[str, torch.dtype]:
    """Of the frozen weights while a run trains: the vision encoder in fp32, the language model in what it computes in.

    In fp32, as it is in its folder; where that is not there, Flan-T5 is published in fp32 and Vicuna in fp16.
    """
    llm = config.model.llm
    path = Path(llm.weights or "") / "config.json"
    if config.trainer.precision is Precision.bf16:
        name = "bfloat16"
    elif llm.weights is not None and path.is_file():
        facts = read_json(path)
        name = str(facts.get("dtype") or facts.get("torch_dtype") or "float32")
    else:
        name = "float32" if config.model.random_init or llm.type == "t5" else "float16"
    return {"vision": torch.float32, "llm": getattr(torch, name)}


def longest(config: TrainConfig) -> Texts:
    """A micro-batch whose texts are all as long as they may be."""
    return Texts(config.model.llm.max_prompt_length, config.model.llm.max_response_length)


def peak(model: InstructBlip, config: TrainConfig, setting: Setting, texts: Texts) -> Peak:
    """The predicted peak of a GPU, every part of it."""
    dtypes = held(config)
    return Peak(
        state(model, setting, dtypes) | working(model, setting, dtypes, texts) | {"CUDA and allocator": RESERVED}
    )


def proposed(model: InstructBlip, config: TrainConfig, gpus: int, memory: float) -> Proposal:
    """The fastest layout that holds the longest texts in `memory` bytes: the largest micro-batch of the first strategy
    that fits, unsharded before sharded, without activation checkpointing before with it.

    Raises ValueError for fewer samples a step than GPUs.
    """
    if gpus < 1 or gpus > config.batch_size:
        raise ValueError(f"plan.gpus={gpus} for batch_size={config.batch_size}: choose 1 to {config.batch_size}")
    if memory <= 0:
        raise ValueError(f"plan.memory_gb={memory / 1e9:g}: give what a GPU has, as 40")
    share = -(-config.batch_size // gpus)
    strategies = ["single"] if gpus == 1 else ["ddp", "fsdp"]
    tried = []
    for strategy in strategies:
        for checkpointing in (False, True):
            base = Setting(strategy, gpus, 1, config.trainer.precision, checkpointing)
            for size in _sizes(share, config.per_image):
                setting = replace(base, micro_batch_size=size)
                found = peak(model, config, setting, longest(config))
                tried.append(Proposal(setting, found, max(0.0, found.total - memory)))
                if not tried[-1].short:
                    return tried[-1]
    return min(tried, key=lambda proposal: proposal.short)


def _sizes(share: int, per_image: int) -> list[int]:
    """Micro-batches to try, large ones first: shares of a GPU's samples with nothing left over."""
    return [size for size in range(share, 0, -1) if share % size == 0 and size % per_image == 0] or [per_image]
