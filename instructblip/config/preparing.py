"""What `prepare.py` is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from instructblip.choices import MediaMode, Source
from instructblip.config.data import PartitionConfig, PathsConfig
from instructblip.config.model import ModelConfig


@dataclass
class PrepareConfig:
    recipe: Any = None
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    splits: list[str] | None = None  # null: the recipe's training and evaluation splits
    media: MediaMode = MediaMode.copy
    shard_size: int = 10_000  # pictures per tar (ours)
    max_bad_media: float = 0.0  # share of a recipe's pictures that may be missing or broken
    check_counts: bool = True  # refuse a split whose row count is not the official one
    workers: int | None = None  # processes that read pictures; null: one a core
    frames: int = 4  # of a clip, uniformly spaced (paper: 4, p. 6)
    part: int | None = None  # prepare this part of `parts` alone: one machine each
    parts: int = 64
    join: bool = False  # make one table of the parts, instead of preparing
    export: str | None = None  # folder for self-contained WebDataset shards of what was prepared
    rebuild: bool = False  # replace tables that another version of the recipe wrote
    source: Source = Source.raw
    check: bool = False  # only say what is there, what is missing and where it comes from
    check_json: str | None = None  # file for the same, for a program
    download_rate: float = 20.0  # megabytes a second that check=true reckons with (ours)
    explain: str | None = None  # a mixture: only show its sizes, probabilities and epochs
    steps: int = 60_000  # of the run that `explain` reckons with; these are vicuna7b's
    batch_size: int = 128
    preview: bool = False  # render some prepared rows as HTML, as the model of `model` reads them
    preview_rows: int = 8  # of each split
    preview_seed: int = 0  # of their choice
    model: ModelConfig = field(default_factory=ModelConfig)
    audit: bool = False  # compare what is prepared: which pictures and texts do training and evaluation share
    audit_distance: int = 6  # bits in which the perceptual hashes of one picture may differ (ours, on photographs)
    miniature: int | None = None  # seed: first render the embedded world into paths.raw
