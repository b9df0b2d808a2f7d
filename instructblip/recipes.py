"""A recipe is one YAML of facts about a dataset; this file loads, validates and lists `data_recipes/`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from instructblip.data.sample import Form
from instructblip.names import lookup, require

RECIPES = Path(__file__).resolve().parent.parent / "data_recipes"
TASKS = (  # the 11 categories of the paper (Figure 2)
    "image captioning",
    "image captioning with reading",
    "visual reasoning",
    "image question answering",
    "knowledge-grounded image question answering",
    "image question answering with reading",
    "image question generation",
    "video question answering",
    "visual conversational question answering",
    "image classification",
    "llava-instruct-150k",
)


class Access(Enum):
    open = "open"
    form = "form"
    click_through = "click_through"


class ResponseText(Enum):
    """How a training response is written: as the source has it, or as LAVIS' `blip_caption` processor does."""

    raw = "raw"
    caption = "caption"


class Mode(Enum):
    generate = "generate"
    rank = "rank"


class RepetitionScope(StrEnum):
    """Whose words the repetition penalty punishes."""

    generated = "generated"  # the response's alone: LAVIS, which generates from embeddings
    all = "all"  # the prompt's too, as transformers 5 does for decoder-only models that are given its ids


class BeamLength(StrEnum):
    """What counts when a beam's summed log-likelihood is divided by length ** length_penalty (PAPER B.3)."""

    with_start = "with_start"  # transformers 4.28, so the paper: the start token and all tokens but EOS
    generated = "generated"  # transformers 5: all tokens; differs only for a response cut at max_new_tokens


@dataclass
class Split:
    """`files` are the official names under `paths.raw/<source>/`; `select` picks rows of a file shared by splits."""

    files: list[str] = MISSING
    rows: int = MISSING  # official count of Samples
    reader: str = MISSING
    select: list[str] = field(default_factory=list)


@dataclass
class Sampling:
    """S_d of the paper's p_d ~ sqrt(S_d), and what it counts (the paper does not say)."""

    size: int = MISSING
    unit: str = MISSING


@dataclass
class Decoding:
    """Settings of `generate`, named as in transformers; `length_penalty` differs by family in LAVIS."""

    num_beams: int = 5
    max_new_tokens: int = 10  # LAVIS' max_length=10 leaves a causal model 9, as it counts the start token
    min_new_tokens: int = 1
    repetition_penalty: float = 1.5
    repetition_scope: RepetitionScope = RepetitionScope.generated
    length_penalty: dict[str, float] = field(default_factory=dict)  # causal, encoder_decoder
    beam_length: BeamLength = BeamLength.with_start
    top_p: float | None = None  # nucleus sampling with one beam (LAVIS 0.9); null: the likeliest
    seed: int = 0  # of that sampling, together with each Sample's uid


@dataclass
class Evaluation:
    """A protocol: everything that changes a score. `prompts` has one wording per profile (paper, lavis)."""

    split: str = MISSING
    mode: Mode = MISSING
    prompts: dict[str, str] = MISSING
    metric: str = MISSING
    decoding: Decoding = field(default_factory=Decoding)
    version: int = 1


@dataclass
class Recipe:
    name: str = MISSING
    task: str = MISSING
    form: Form = MISSING
    source: str = MISSING  # folder under paths.raw
    pool: str = MISSING  # media pool
    urls: list[str] = MISSING
    licence: str = MISSING
    access: Access = MISSING
    splits: dict[str, Split] = MISSING
    train: str | None = None  # the one split that may be trained on
    templates: str | None = None
    response: ResponseText = ResponseText.raw
    sampling: Sampling | None = None
    evaluation: Evaluation | None = None

    def data_version(self) -> str:
        """Hash of the fields that decide what is in the tables; wording and protocols are not among them."""
        return fingerprint([self.name, self.form.value, self.source, self.pool, plain(self.splits)])

    def split(self, name: str) -> Split:
        return lookup(name, self.splits, f"split of {self.name}")

    def protocol(self, prompts: str) -> Evaluation:
        """The evaluation protocol, checked to have the prompt profile `prompts`."""
        if self.evaluation is None:
            raise ValueError(f"recipe {self.name} has no evaluation protocol")
        require(prompts, self.evaluation.prompts, f"prompt profile of {self.name}")
        return self.evaluation


def plain(value: Any) -> Any:
    """Dataclasses and enums as JSON types, for hashing and writing."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    return value


def fingerprint(value: Any) -> str:
    """Twelve hex digits of the canonical JSON of a value."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def names() -> tuple[str, ...]:
    """Every recipe in `data_recipes/`."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))


@cache
def load(name: str) -> Recipe:
    """A recipe by name, or from a YAML file of the user's. Raises ValueError naming the file and what is wrong."""
    if not name.endswith(".yaml"):
        require(name, names(), "recipe")
    path = Path(name) if name.endswith(".yaml") else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no recipe file {path}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Recipe), OmegaConf.load(path))
        recipe = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(recipe, Recipe)
    _validate(recipe, path)
    return recipe


def select(recipe: Any, groups: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Normalises a `recipe=` setting: a name, a list, a group of the partition, `all`, or a YAML file.

    `groups` maps `held_in` and `held_out` to names. Returns the recipes, and the names of a group that have no
    recipe file here.
    """
    chosen: list[str] = []
    absent: list[str] = []
    for item in [recipe] if isinstance(recipe, str) else list(recipe):
        if item == "all":
            chosen += names()
        elif item in groups:
            chosen += [name for name in groups[item] if name in names()]
            absent += [name for name in groups[item] if name not in names()]
        else:
            if not str(item).endswith(".yaml"):
                require(str(item), [*names(), *groups, "all"], "recipe")
            chosen.append(str(item))
    return list(dict.fromkeys(chosen)), absent


def needed_splits(recipe: Recipe, wanted: Sequence[str] | None = None) -> list[str]:
    """The splits to prepare: those asked for, by default the ones a study trains on and evaluates."""
    if wanted:
        for split in wanted:
            recipe.split(split)
        return list(wanted)
    evaluated = recipe.evaluation.split if recipe.evaluation else None
    return [split for split in (recipe.train, evaluated) if split]


def _validate(recipe: Recipe, path: Path) -> None:
    if recipe.name != path.stem:
        raise ValueError(f"{path}: name is {recipe.name!r}, the file says {path.stem!r}")
    if recipe.task not in TASKS:
        raise ValueError(f"{path}: unknown task {recipe.task!r}; one of {', '.join(TASKS)}")
    if recipe.train:
        recipe.split(recipe.train)
    if recipe.evaluation:
        recipe.split(recipe.evaluation.split)
        if recipe.evaluation.split == recipe.train:
            raise ValueError(f"{path}: split {recipe.evaluation.split!r} is both trained on and evaluated")
