"""What `evaluate.py` and `report.py` are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from instructblip.choices import Images
from instructblip.config.data import PartitionConfig, PathsConfig


@dataclass
class EvaluateConfig:
    run: str = MISSING
    recipe: Any = MISSING
    prompts: str = "paper"
    predict: bool = True  # false: score the predictions that are there
    images: Images = Images.own
    limit: int | None = None
    eval_llm_limit: int | None = None  # tokens of a prompt the language model reads; null: all (LAVIS)
    batch_size: int = 16
    device: str = "auto"
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass
class ReportConfig:
    runs: list[str] = field(default_factory=list)  # names; empty: every run under paths.runs
    paths: PathsConfig = field(default_factory=PathsConfig)
