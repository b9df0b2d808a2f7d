"""How a mixture is weighted: each dataset's probability from its size, and what has to be there for its name to hold.

p_d = f_d S_d^(1/T) / sum over the mixture, where S_d is the dataset's size, T the temperature and f_d a hand factor.
T = 2 is the paper's square root (section 2.3), T = 1 proportional mixing; uniform mixing, the paper's ablation, is the
limit of a high temperature, without hand factors since these correct the balancing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instructblip import recipes as recipe_files
from instructblip.choices import Weighting
from instructblip.config.data import MixtureConfig
from instructblip.files import read_json
from instructblip.names import require
from instructblip.recipes import Recipe, Sampling

TEMPERATURES = {Weighting.sqrt: 2.0, Weighting.proportional: 1.0, Weighting.uniform: math.inf}


@dataclass(frozen=True, slots=True)
class Share:
    """A dataset's part in a mixture, with everything its probability comes from."""

    recipe: Recipe
    split: str
    sampling: Sampling  # S_d and what it counts
    root: float  # S_d^(1/T)
    factor: float  # by hand
    probability: float


def members(mixture: MixtureConfig, groups: Mapping[str, Sequence[str]]) -> tuple[list[Recipe], list[str]]:
    """The mixture's recipes but for the tasks it goes without, and names of its groups that have no recipe file.

    Raises ValueError for a task that none of them has, or when nothing is left.
    """
    names, absent = recipe_files.select(mixture.recipes, groups)
    chosen = [recipe_files.load(name) for name in names]
    for task in mixture.without:
        require(task, {recipe.task for recipe in chosen}, f"task of mixture {mixture.name} in mixture.without")
    left = [recipe for recipe in chosen if recipe.task not in mixture.without]
    if mixture.without and not left:
        raise ValueError(f"mixture.without={mixture.without} leaves nothing of mixture {mixture.name}")
    return left, absent


def shares(recipes: Sequence[Recipe], mixture: MixtureConfig) -> list[Share]:
    """One Share a recipe, in their order; the probabilities sum to 1.

    Raises ValueError for a recipe without a size, a setting for one that is not here, or a factor below 0.
    """
    _refuse_strangers(mixture, {recipe.name for recipe in recipes})
    balanced = mixture.weighting is not Weighting.uniform
    samplings = [_sampling(recipe, mixture) for recipe in recipes]
    roots = [sampling.size ** (1 / temperature(mixture)) for sampling in samplings]
    factors = [mixture.factors.get(recipe.name, 1.0) if balanced else 1.0 for recipe in recipes]
    if min(factors) <= 0:
        raise ValueError(f"mixture.factors={mixture.factors}: a factor is above 0; leave a dataset out of recipes")
    total = sum(root * factor for root, factor in zip(roots, factors, strict=True))
    return [
        Share(recipe, recipe.training_split(mixture.splits), sampling, root, factor, root * factor / total)
        for recipe, sampling, root, factor in zip(recipes, samplings, roots, factors, strict=True)
    ]


def temperature(mixture: MixtureConfig) -> float:
    """T of the mixture's weighting. Raises ValueError when it is missing, not positive, or would not be used."""
    given = mixture.temperature
    if mixture.weighting is not Weighting.temperature:
        if given is not None:
            raise ValueError(
                f"mixture.temperature={given} is not used by weighting={mixture.weighting.value}; "
                "set mixture.weighting=temperature"
            )
        return TEMPERATURES[mixture.weighting]
    if given is None or not given > 0:
        raise ValueError(f"mixture.weighting=temperature with temperature={given}; it is a number above 0, 2 is sqrt")
    return given


def prepared_rows(share: Share, data: Path) -> int | None:
    """Rows of the training split as prepared; None while it is not."""
    path = data / "tables" / share.recipe.table / "manifest.json"
    entry = read_json(path)["splits"].get(share.split) if path.is_file() else None
    return int(entry["rows"]) if entry else None


def rows(share: Share, mixture: MixtureConfig, data: Path) -> int | None:
    """Rows of the training split: as prepared, else the official number, else what the mixture demands."""
    there = prepared_rows(share, data)
    demanded = math.ceil(mixture.complete.get(share.recipe.name, 0.0) * share.sampling.size)
    return there or share.recipe.split(share.split).rows or demanded or None


def incomplete(chosen: Sequence[Share], mixture: MixtureConfig, data: Path) -> str | None:
    """What of a dataset that the mixture's name promises is not prepared, and the mixtures that do without."""
    for share in chosen:
        demanded = math.ceil(mixture.complete.get(share.recipe.name, 0.0) * share.sampling.size)
        there = prepared_rows(share, data) or 0
        if there < demanded:
            others = "; ".join(f"mixture={name}: {what}" for name, what in mixture.otherwise.items())
            return (
                f"mixture {mixture.name} asks for {demanded:,} rows of {share.recipe.name}/{share.split}, "
                f"{there:,} are prepared. Prepare them, or choose another mixture by its name ({others})"
            )
    return None


def _sampling(recipe: Recipe, mixture: MixtureConfig) -> Sampling:
    sampling = mixture.sizes.get(recipe.name, recipe.sampling)
    if sampling is None:
        raise ValueError(
            f"recipe {recipe.name} has no sampling size, so it cannot be in a mixture; "
            f"give one: '+mixture.sizes={{{recipe.name}: {{size: 1000, unit: row}}}}'"
        )
    if sampling.size < 1:
        raise ValueError(f"{recipe.name}: a sampling size of {sampling.size} is not a size")
    return sampling


def _refuse_strangers(mixture: MixtureConfig, names: set[str]) -> None:
    named = {"factors": set(mixture.factors), "sizes": set(mixture.sizes), "complete": set(mixture.complete)}
    for setting, given in named.items():
        strangers = sorted(given - names)
        if unknown := [name for name in strangers if not _left_out(name, mixture)]:
            raise ValueError(f"mixture {setting} for {unknown}, which the mixture does not contain")


def _left_out(name: str, mixture: MixtureConfig) -> bool:
    return bool(mixture.without) and recipe_files.load(name).task in mixture.without
