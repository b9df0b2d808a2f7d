"""What `evaluate.py` and `report.py` are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from instructblip.choices import Images
from instructblip.config.data import PartitionConfig, PathsConfig


@dataclass
class EvaluateConfig:
    run: str | None = None  # name or directory
    checkpoint: str | None = None  # in its place a Hugging Face folder or a LAVIS file
    config: str | None = None  # YAML with model:, for a file that does not say how its model is built
    overrides: list[str] = field(default_factory=list)  # over that YAML: model.llm.weights=DIR
    name: str = ""  # of a checkpoint's results; empty: that of its folder or file
    recipe: Any = MISSING
    prompts: str = "paper"  # or lavis, the id of a template, or all
    variant: str | None = None  # of the recipe's protocol
    predict: bool = True  # false: score the predictions that are there
    missing: bool = False  # only what has no score yet
    submit: bool = False  # also write the file a server takes; of an unlabelled split it always is
    images: Images = Images.own
    constant: bool = False  # in the model's place the best constant answer of what the run was tuned on
    limit: int | None = None
    eval_llm_limit: int | None = None  # tokens of a prompt the language model reads; null: all (LAVIS)
    batch_size: int = 16
    feature_cache_gib: float = 4.0  # main memory for encoded pictures, 1.4 MiB each at paper size (ours)
    device: str = "auto"
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass
class ReportConfig:
    runs: list[str] = field(default_factory=list)  # names; empty: every run under paths.runs
    table: str | None = None  # 1 to 5, figure2, figure4, claims, prompts or all; null: runs and scores alone
    draws: int = 1_000  # of the bootstrap (ours)
    html: bool = False  # paths.runs/report/report.html: all of it in one file
    examples: int = 12  # questions of each recipe on that page (ours)
    compare: list[str] = field(default_factory=list)  # runs, and hf:DIR for models of transformers
    set: str | None = None  # of experiments/qualitative, or a YAML: what they are asked
    lens: bool = False  # look into run= or checkpoint=: image= under instructions=, or scenes= of the embedded world
    run: str | None = None  # name or directory
    checkpoint: str | None = None  # in its place a Hugging Face folder or a LAVIS file
    config: str | None = None  # YAML with model:, for a file that does not say how its model is built
    overrides: list[str] = field(default_factory=list)  # over that YAML: model.llm.weights=DIR
    name: str = ""  # of a checkpoint's results; empty: that of its folder or file
    image: str | None = None  # a picture file
    instructions: str | None = None  # a text file, one a line; the first two are compared
    scenes: int | None = None  # drawn to measure where the queries look and what they need
    scene_seed: int = 1_000  # of those scenes; worlds are rendered from small numbers (ours)
    against: str | None = None  # another run, shown the same scenes
    device: str = "auto"  # for the models of compare= and lens=
    partition: PartitionConfig = field(default_factory=PartitionConfig)  # only runs of it fill a table
    paths: PathsConfig = field(default_factory=PathsConfig)
