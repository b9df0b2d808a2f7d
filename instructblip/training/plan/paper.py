"""What the paper says of its four runs, in one place, and how a config compares with it."""

from __future__ import annotations

from dataclasses import dataclass

from instructblip.choices import Precision
from instructblip.config.training import TrainConfig

GPUS, GPU, HOURS = 16, "A100", 36.0  # "within 1.5 days" on 16 A100 (40 GB), section 2.6: an upper bound
HELD_IN = 13  # Figure 2


@dataclass(frozen=True)
class Published:
    """Of one run (arXiv 2305.06500v2, section 2.6, unless said otherwise)."""

    batch_size: int
    image_size: int = 224
    steps: int = 60_000
    lr: float = 1e-5
    warmup_lr: float = 1e-8
    warmup_steps: int = 1000
    min_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    queries: int = 32  # BLIP-2's, LAVIS blip2.py
    weighting: str = "sqrt"  # section 2.3, with two factors by hand that are not published
    mixture: str = "paper"  # ours: the name of the 13 held-in datasets with all 14M web captions
    precision: Precision = Precision.bf16  # LAVIS' autocast; the paper names none
    clip_norm: float | None = None  # LAVIS clips nothing


PUBLISHED = {
    "flant5xl": Published(batch_size=192),
    "flant5xxl": Published(batch_size=64),
    "vicuna7b": Published(batch_size=128),
    "vicuna13b": Published(batch_size=64),
}


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    name: str
    paper: object
    here: object

    @property
    def equal(self) -> bool:
        return self.paper == self.here


def comparison(config: TrainConfig) -> list[Row]:
    """The paper's numbers beside the run's; empty for a model the paper did not train."""
    paper, optim = PUBLISHED.get(config.model.name), config.optim
    if paper is None:
        return []
    return [
        Row("global batch", paper.batch_size, config.batch_size),
        Row("samples a group (batch / 16 GPUs)", paper.batch_size // GPUS, config.group_size),
        Row("steps", paper.steps, config.steps),
        Row("learning rate", paper.lr, optim.lr),
        Row("warm-up from", paper.warmup_lr, optim.warmup_lr),
        Row("warm-up steps", paper.warmup_steps, optim.warmup_steps),
        Row("cosine to", paper.min_lr, optim.min_lr),
        Row("AdamW betas", paper.betas, tuple(optim.betas)),
        Row("weight decay", paper.weight_decay, optim.weight_decay),
        Row("gradient clipping", paper.clip_norm, optim.clip_norm),
        Row("mixture", paper.mixture, config.mixture.name),
        Row("weighting", paper.weighting, config.mixture.weighting.value),
        Row("precision", paper.precision.value, config.trainer.precision.value),
        Row("image size", paper.image_size, config.model.vision.image_size),
        Row("queries", paper.queries, config.model.qformer.num_query_tokens),
        Row("instruction to the Q-Former", True, config.model.qformer.instruction_aware),
    ]
