"""What `train.py` is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from instructblip.choices import (
    Leakage,
    Objective,
    OnFullDisk,
    OnNonFinite,
    Precision,
    Purpose,
    Reduction,
    Requeue,
    Resume,
    Schedule,
    SelectionSource,
    Strategy,
)
from instructblip.config.data import MixtureConfig, PartitionConfig, PathsConfig, TransformsConfig, WordingConfig
from instructblip.config.model import ModelConfig


@dataclass
class OptimConfig:
    """AdamW with a linear warm-up and a cosine to `min_lr` (PAPER C.1)."""

    schedule: Schedule = Schedule.cosine
    inner_epoch: int = 3000  # steps of schedule=lavis between two rates: LAVIS' are those between two validations
    lr: float = 1e-5
    warmup_lr: float = 1e-8
    min_lr: float = 0.0
    warmup_steps: int = 1000
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.05
    clip_norm: float | None = None
    lr_scale: dict[str, float] = field(default_factory=dict)  # layer, by the last part of its name -> times the rate


@dataclass
class LossConfig:
    reduction: Reduction = Reduction.group
    group_size: int | None = None  # null: the group size of the stream


@dataclass
class TrainerConfig:
    """Where and how a run is executed; nothing here may change what is learnt."""

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = Strategy.single
    precision: Precision = Precision.bf16
    activation_checkpointing: bool = False  # compute the language model's layers again in backward: less memory
    compile: bool = False  # the layers of the backbones, with torch.compile
    micro_batch_size: int = 8
    num_workers: int = 2
    num_threads: int | None = None  # of the main process; null: torch's own choice
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    max_bad_media: int = 100  # ours: a run stops after so many unreadable pictures
    on_nonfinite: OnNonFinite = OnNonFinite.stop
    max_nonfinite: int = 10  # ours: with on_nonfinite=skip, a run stops at the next one
    on_full_disk: OnFullDisk = OnFullDisk.stop
    timeout: int = 600  # seconds (ours) after which a step, with the save others wait for, counts as hanging
    requeue: Requeue = Requeue.never


@dataclass
class SelectionConfig:
    """By what the best checkpoint is chosen: the mean score over `recipes`, on rows that are never trained on."""

    source: SelectionSource = SelectionSource.none
    recipes: list[str] = field(
        default_factory=lambda: ["coco_caption", "okvqa", "aokvqa", "textcaps"]  # held-in average of Table 2
    )
    rows: int = 500  # of each recipe (ours)
    recipe_rows: dict[str, int] = field(default_factory=dict)  # recipe -> another number
    splits: dict[str, str] = field(default_factory=lambda: {"coco_caption": "val"})  # instead of carving; Karpathy's
    prompts: str = "paper"  # profile


@dataclass
class ValidationConfig:
    """How often a run is validated; needs a `selection.source`, whose recipes are scored by what they generate."""

    every: int | None = None  # steps; also before the first and after the last. Paper: 3,000. null: never
    recipes: Any = "held_in"  # of these, also those of the mixture that have an evaluation have their loss taken
    batch_size: int = 16
    samples: int = 3  # answers of each scored recipe that are kept to be read


@dataclass
class LoggerConfig:
    """Beside the files of the run directory, which are always written."""

    tensorboard: bool = False
    wandb: bool = False
    project: str = "instructblip"  # of W&B, as all that follow
    entity: str | None = None
    group: str | None = None  # of a sweep's runs; null: those of the same experiment
    tags: list[str] = field(default_factory=list)  # beside experiment and mixture
    offline: bool = True  # no account needed; `wandb sync` sends it later


@dataclass
class PlanConfig:
    """What `dry_run=true` reckons with; no run depends on it."""

    gpus: int | None = None  # how the run would go on so many; null: as `trainer` says
    memory_gb: float | None = None  # of each, 10^9 bytes; null: 40, as the paper's A100
    mfu: float = 0.4  # ours, an assumption: LAVIS' best public log of this architecture reaches 0.38


@dataclass
class TrainConfig:
    experiment: list[str] = field(default_factory=list)  # filled from the experiment= on the command line
    name: str = ""  # of the run directory; derived when empty
    seed: int = 42  # LAVIS
    objective: Objective = Objective.instruct
    purpose: Purpose = Purpose.instruction_tune
    allow_leak: bool = False
    leakage: Leakage = Leakage.paper
    steps: int = MISSING
    batch_size: int = MISSING  # global
    per_image: int = 1  # consecutive samples of one picture, which is encoded once (ours; the paper mixes all rows)
    group_size: int = MISSING  # consecutive samples of one dataset: the paper's per-GPU batch
    model: ModelConfig = field(default_factory=ModelConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    wording: WordingConfig = field(default_factory=WordingConfig)
    transforms: TransformsConfig = field(default_factory=TransformsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    resume: Resume = Resume.never
    allow_change: list[str] = field(default_factory=list)  # keys that may differ from those a run was begun with
    dry_run: bool = False
    plan: PlanConfig = field(default_factory=PlanConfig)
    selfcheck: str = "false"  # false, true or planted (choices.Selfcheck; a text, since YAML has its own true)
