"""A recipe is one YAML of facts about a dataset; this file loads, validates and lists `data_recipes/`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from instructblip import multitask, pools
from instructblip.data.sample import Form
from instructblip.files import read_yaml
from instructblip.names import lookup, require
from instructblip.pools import Access, Download
from instructblip.protocols import Evaluation

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


OWN = "own data"  # the task of a user's recipe that names none of them
OWN_FACTS = {"task": OWN, "form": "instruct", "downloads": [], "licence": "the user's own", "access": "open"}
NAME = re.compile(r"[A-Za-z0-9][\w\-]*", re.ASCII)  # becomes a folder or file name


class ResponseText(Enum):
    """How a training response is written: as the source has it, or as LAVIS' `blip_caption` processor does."""

    raw = "raw"
    caption = "caption"


@dataclass
class Split:
    """`files` are the official names under `paths.raw/<source>/`, or patterns; `optional` ones follow where present."""

    reader: str = MISSING
    files: list[str] = MISSING
    optional: list[str] = field(default_factory=list)
    select: list[str] = field(default_factory=list)  # what the reader takes of files that hold more
    rows: int | None = MISSING  # official count of Samples; null: none is published
    templates: str | None = None  # where it is worded by another family than the recipe's


@dataclass
class Sampling:
    """S_d of the paper's p_d ~ sqrt(S_d), and what it counts (the paper does not say)."""

    size: int = MISSING
    unit: str = MISSING


@dataclass
class Vocabulary:
    """A closed list of answers: an official file, or the answers of splits, most frequent first."""

    file: str | None = None
    splits: list[str] = field(default_factory=list)
    top: int | None = None  # of the most frequent; null: all


@dataclass
class Mirror:
    """A split on the Hugging Face hub. `reader: official` reads `files` as the split's own reader does."""

    repo: str = MISSING
    split: str = MISSING
    reader: str = MISSING  # of readers.mirrors
    config: str | None = None
    revision: str | None = None
    files: str | None = None  # of a repository without a loader: the name of its data file
    pictures: str | None = None  # the config with the pictures (id, image), where they lie apart
    beside: list[str] = field(default_factory=list)  # official files needed as well, under paths.raw/<source>/


@dataclass
class Recipe:
    name: str = MISSING
    task: str = MISSING
    form: Form = MISSING
    view_of: str | None = None  # the recipe whose tables, source, pool and splits these are (question generation)
    source: str = MISSING  # folder under paths.raw
    pool: str = MISSING  # media pool
    downloads: list[Download] = MISSING
    licence: str = MISSING
    access: Access = MISSING
    splits: dict[str, Split] = MISSING
    train: list[str] = field(default_factory=list)  # splits that may be trained on; a mixture takes the first
    templates: str | None = None
    response: ResponseText = ResponseText.raw
    sampling: Sampling | None = None
    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    mirrors: dict[str, Mirror] = field(default_factory=dict)  # split -> where the hub has it faithfully
    no_mirror: str | None = None  # why the hub has none

    @property
    def table(self) -> str:
        """The recipe whose prepared tables are read."""
        return self.view_of or self.name

    def data_version(self) -> str:
        """Hash of the fields that decide what is in the tables; wording and protocols are not among them."""
        read = ("files", "optional", "rows", "reader", "select")
        splits = {name: [getattr(split, key) for key in read] for name, split in self.splits.items()}
        return fingerprint([self.table, self.source, self.pool, splits])

    def split(self, name: str) -> Split:
        return lookup(name, self.splits, f"split of {self.name}")

    def training_split(self, chosen: Mapping[str, str]) -> str:
        """The split a mixture trains on: its choice for this recipe, or the first. Raises ValueError if not allowed."""
        if not self.train:
            raise ValueError(f"recipe {self.name} has no training split: it is for evaluation only")
        split = chosen.get(self.name, self.train[0])
        require(split, self.train, f"training split of {self.name}")
        return split

    def wordings(self, split: str) -> str:
        """The template family a split is worded with."""
        return self.split(split).templates or self.templates or ""

    def evaluated(self) -> list[str]:
        """The splits that are scored: of the protocol and of each of its variants."""
        if self.evaluation is None:
            return []
        profile = next(iter(self.evaluation.prompts))
        variants = [None, *self.evaluation.variants]
        return list(dict.fromkeys(self.protocol(profile, variant).split for variant in variants))

    def protocol(self, prompts: str, variant: str | None = None) -> Evaluation:
        """The evaluation protocol or a variant of it, with the prompt profile `prompts`: its own, or a baseline's."""
        if self.evaluation is None:
            raise ValueError(f"recipe {self.name} has no evaluation protocol")
        chosen = self.evaluation
        if variant:
            changed = lookup(variant, chosen.variants, f"evaluation variant of {self.name}")
            merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(chosen), changed, {"variants": {}}))
            assert isinstance(merged, Evaluation)
            chosen = merged
        if prompts in multitask.PROFILES and prompts not in chosen.prompts:
            asked = multitask.prompt(prompts, self.task, self.name, self.form, chosen)
            return replace(chosen, prompts={**chosen.prompts, prompts: asked})
        require(prompts, [*chosen.prompts, *multitask.PROFILES], f"prompt profile of {self.name}")
        return chosen


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
    facts: Any = OmegaConf.load(path)
    if facts.get("task", OWN) == OWN:
        uncounted = {split: {"rows": None} for split in facts.get("splits", {})}
        facts = OmegaConf.merge(OWN_FACTS, {"source": path.stem, "pool": path.stem, "splits": uncounted}, facts)
    if parent := facts.get("view_of"):
        facts = OmegaConf.merge(_shared_with(load(parent)), facts)
    recipe = read_yaml(path, Recipe, facts)
    _validate(recipe, path)
    return recipe


def _shared_with(parent: Recipe) -> dict[str, Any]:
    """What a view has from its parent: everything that says where its rows come from."""
    names = ("source", "pool", "downloads", "licence", "access", "splits", "mirrors", "no_mirror")
    return {name: plain(getattr(parent, name)) for name in names}


def select(recipe: Any, groups: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Normalises a `recipe=` setting: a name, a list, a group of the partition, `all`, `quick`, a YAML file.

    `groups` maps `held_in` and `held_out` to names. Returns the recipes, and the names of a group that have no
    recipe file here.
    """
    chosen: list[str] = []
    absent: list[str] = []
    for item in [recipe] if isinstance(recipe, str) else list(recipe):
        if item == "all":
            chosen += names()
        elif item == "quick":
            chosen += quick()
        elif item in groups:
            chosen += [name for name in groups[item] if name in names()]
            absent += [name for name in groups[item] if name not in names()]
        else:
            if not str(item).endswith(".yaml"):
                require(str(item), [*names(), *groups, "all", "quick"], "recipe")
            chosen.append(str(item))
    return list(dict.fromkeys(chosen)), absent


def quick() -> list[str]:
    """The recipes whose annotations and media need no form, registration or click-through."""
    everything = [load(name) for name in names()]
    return [recipe.name for recipe in everything if {recipe.access, pools.load(recipe.pool).access} == {Access.open}]


def needed_splits(recipe: Recipe, wanted: Sequence[str] | None = None, held_out: bool = False) -> list[str]:
    """The splits to prepare: those asked for, by default the ones a study trains on (not held out) and evaluates."""
    if wanted:
        for split in wanted:
            recipe.split(split)
        return list(wanted)
    evaluated = recipe.evaluation.split if recipe.evaluation else None
    return [split for split in (*([] if held_out else recipe.train[:1]), evaluated) if split]


def _validate(recipe: Recipe, path: Path) -> None:
    if recipe.name != path.stem:
        raise ValueError(f"{path}: name is {recipe.name!r}, the file says {path.stem!r}")
    _validate_names(recipe, path)
    if recipe.task not in (*TASKS, OWN):
        raise ValueError(f"{path}: unknown task {recipe.task!r}; one of {', '.join(TASKS)}, or {OWN!r}")
    if recipe.task == OWN and recipe.name in names():
        raise ValueError(f"{path}: {recipe.name} is a recipe of this project; give your own data another name")
    for split in recipe.train:
        recipe.split(split)
    for variant in [None, *recipe.evaluation.variants] if recipe.evaluation else []:
        _validate_protocol(recipe, variant, path)


def _validate_names(recipe: Recipe, path: Path) -> None:
    """Names of recipe, pool, splits and prompt profiles are parts of file names."""
    profiles = recipe.evaluation.prompts if recipe.evaluation else {}
    for name in (recipe.name, recipe.pool, *recipe.splits, *profiles):
        if not NAME.fullmatch(name):
            raise ValueError(f"{path}: {name!r} names files, so it may hold letters, digits, '_' and '-' only")


def _validate_protocol(recipe: Recipe, variant: str | None, path: Path) -> None:
    assert recipe.evaluation is not None
    profile = "paper" if recipe.task != OWN else next(iter(recipe.evaluation.prompts), "")
    try:
        protocol = recipe.protocol(profile, variant)
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: variant {variant}: {str(error).splitlines()[0]}") from error
    recipe.split(protocol.split)
    if protocol.split in recipe.train:
        raise ValueError(f"{path}: split {protocol.split!r} is both trained on and evaluated")
    if protocol.vocabulary:
        require(protocol.vocabulary, recipe.vocabularies, f"vocabulary of {recipe.name}")
