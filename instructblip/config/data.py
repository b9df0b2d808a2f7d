"""Where data lie, what a study trains on, and how datasets are mixed and pictures changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from instructblip.choices import Draw, Weighting, Wording
from instructblip.recipes import Sampling


@dataclass
class PathsConfig:
    raw: str = MISSING
    data: str = MISSING
    runs: str = MISSING
    weights: str = MISSING
    hub: str | None = None  # copies of Hugging Face datasets as <hub>/<owner>/<name>; null: the hub itself
    media: dict[str, str] = field(default_factory=dict)  # pool -> folder, where it is not paths.raw/<pool>

    def pool(self, name: str) -> Path:
        """Where the pictures of a media pool lie as their publisher names them."""
        return Path(self.media.get(name, f"{self.raw}/{name}"))


@dataclass
class PartitionConfig:
    """Which recipes a study trains on and which it never sees."""

    held_in: list[str] = MISSING
    held_out: list[str] = MISSING

    def groups(self) -> dict[str, list[str]]:
        """What `recipe=held_in` and `recipe=held_out` stand for."""
        return {"held_in": self.held_in, "held_out": self.held_out}


@dataclass
class MixtureConfig:
    name: str = MISSING
    recipes: Any = MISSING
    weighting: Weighting = Weighting.sqrt
    temperature: float | None = None  # T of weighting=temperature, p_d ~ S_d^(1/T)
    without: list[str] = field(default_factory=list)  # tasks that are left out; the others share what they had
    splits: dict[str, str] = field(default_factory=dict)  # recipe -> another of its training splits than the first
    sizes: dict[str, Sampling] = field(default_factory=dict)  # recipe -> another S_d than its own, and what it counts
    factors: dict[str, float] = field(default_factory=dict)  # hand factors on p_d, before renormalising
    draw: Draw = Draw.random
    complete: dict[str, float] = field(default_factory=dict)  # recipe -> share of its S_d that must be prepared
    otherwise: dict[str, str] = field(default_factory=dict)  # mixtures to choose when it is not, and what they are


@dataclass
class WordingConfig:
    """How training samples are worded (paper, section 2.1: one of the task's templates, drawn uniformly)."""

    style: Wording = Wording.instructions
    keep: dict[str, list[str]] = field(default_factory=dict)  # template family -> ids; of other families all are used


@dataclass
class TransformsConfig:
    """Training crops, flips and RandAugment (PAPER C.4); evaluation squashes to the image size.

    Crops and flips falsify what a question says of left and right, of counts and of printed words.
    """

    crop_scale: list[float] = field(default_factory=lambda: [0.5, 1.0])  # share of the area
    flip: float = 0.5
    rand_augment: int = 0  # operations a picture; LAVIS draws 2 for FlanT5, none for Vicuna
    rand_augment_level: int = 5  # of 10, LAVIS
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)  # recipe -> fields it has otherwise

    def of(self, recipe: str) -> TransformsConfig:
        """What holds for one recipe. Raises ValueError naming a field there is not."""
        own = self.recipes.get(recipe, {})
        known = [name for name in vars(self) if name != "recipes"]
        if unknown := sorted(set(own) - set(known)):
            raise ValueError(f"transforms.recipes.{recipe} sets {', '.join(unknown)}; it may set {', '.join(known)}")
        return replace(self, **own, recipes={})
