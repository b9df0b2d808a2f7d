"""The selection split: rows that choose a run's best checkpoint, and whose pictures none of its recipes trains on.

The paper chooses one checkpoint a model and does not say by what (PAPER G.9). Here it is the mean score over the four
sets of its Table 2's held-in average. COCO Caption has a split for this, Karpathy's val. OKVQA and A-OKVQA publish
nothing beside training and the very columns of the paper's tables, and TextCaps' val is one of these too, so of them
rows are carved from the training split, picture by picture in the order of a keyed hash: the same for every seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructblip import recipes as recipe_files
from instructblip.choices import Objective, Purpose, SelectionSource
from instructblip.config.training import TrainConfig
from instructblip.data import keyed
from instructblip.data.tables import INTEGERS, Table, table_path
from instructblip.evaluation.measures import metric
from instructblip.evaluation.predictions import Prediction
from instructblip.names import require
from instructblip.protocols import Mode
from instructblip.recipes import Recipe, fingerprint


@dataclass(frozen=True)
class HeldBack:
    """What a recipe is validated on: a table of just these rows. Only what is `scored` counts in the selection."""

    recipe: Recipe
    table: Table
    scored: bool


@dataclass(frozen=True)
class Selection:
    """`pictures` are the `pool/key` of all that is held back from training: none where the paper's columns select."""

    source: SelectionSource
    held_back: Sequence[HeldBack] = ()
    pictures: frozenset[str] = frozenset()

    def kept_rows(self, table: Table) -> INTEGERS | None:
        """Rows of a training table that show none of the pictures; None for all. Raises ValueError if none is left."""
        if not self.pictures or not (showing := table.showing(self.pictures)).any():
            return None
        if showing.all():
            raise ValueError(f"selection.rows leaves nothing of {table.path} to train on; hold fewer rows back")
        return np.flatnonzero(~showing)

    def facts(self) -> dict[str, Any]:
        """For start.json: which rows, and which pictures are never trained on."""
        rows = {held.recipe.name: {"split": held.table.split, "rows": len(held.table)} for held in self.held_back}
        hashed = fingerprint(sorted(self.pictures))
        return {"source": self.source.value, "recipes": rows, "pictures": len(self.pictures), "hash": hashed}


def select(config: TrainConfig, trained: Sequence[Recipe]) -> Selection:
    """Raises ValueError for what cannot be validated: a held-out recipe, a split that is scored or not prepared, a
    metric whose package is not installed, or nothing at all though `validation.every` asks for it.
    """
    settings, every = config.selection, config.validation.every
    if every is not None and every < 1:
        raise ValueError(f"validation.every={every}: validate every step at most, or null for never")
    if settings.source is SelectionSource.none:
        if every:
            raise ValueError(
                f"validation.every={every} has no rows to validate on: selection.source=carved holds "
                f"some back from training, selection.source=paper_guess takes the columns of the paper's tables"
            )
        return Selection(settings.source)
    if config.objective is Objective.stage1:
        raise ValueError("objective=stage1 trains no language model that could be asked; set selection.source=none")
    scored = [_evaluated(config, name) for name in settings.recipes]
    also, _ = recipe_files.select(config.validation.recipes, config.partition.groups())
    others = [recipe for recipe in trained if recipe.name in also and recipe.evaluation and recipe not in scored]
    held = [HeldBack(recipe, _rows(config, recipe), recipe in scored) for recipe in [*scored, *others]]
    for each in held[: len(scored)]:
        _try(each, settings.prompts)
    guessed = settings.source is SelectionSource.paper_guess
    pictures = frozenset[str]().union(*(each.table.names() for each in held)) if not guessed else frozenset[str]()
    return Selection(settings.source, held, pictures)


def _evaluated(config: TrainConfig, name: str) -> Recipe:
    """A recipe to be scored."""
    recipe = recipe_files.load(name)
    recipe.protocol(config.selection.prompts)
    tunes = config.purpose is Purpose.instruction_tune
    if tunes and (recipe.name in config.partition.held_out or recipe.table in config.partition.held_out):
        raise ValueError(f"selection.recipes names {name}, which is held out: what it chooses is not zero-shot")
    return recipe


def _rows(config: TrainConfig, recipe: Recipe) -> Table:
    """The first rows of the split in the order of their pictures' hashes."""
    settings, data = config.selection, Path(config.paths.data)
    for name in (*settings.recipe_rows, *settings.splits):
        require(name, recipe_files.names(), "recipe in selection")
    assert recipe.evaluation is not None
    if settings.source is SelectionSource.paper_guess:
        split = recipe.protocol(settings.prompts).split
    else:
        split = settings.splits.get(recipe.name) or recipe.training_split(config.mixture.splits)
        if split in recipe.evaluated():
            raise ValueError(
                f"selection.splits: {recipe.name}/{split} is scored; selection.source=paper_guess allows it"
            )
    if not table_path(data, recipe.table, split).is_file():
        raise ValueError(
            f"the checkpoint is selected on {recipe.name}/{split}, which is not prepared: "
            f"python prepare.py recipe={recipe.table} splits=[{split}]"
        )
    rows = settings.recipe_rows.get(recipe.name, settings.rows)
    if rows < 1:
        raise ValueError(f"selection.rows={rows}: {recipe.name} needs one row at least")
    return Table.of(data, recipe, split, carved(Table.of(data, recipe, split), rows))


def _try(held: HeldBack, prompts: str) -> None:
    """Scores one row with its own answer. Raises ValueError where the metric's packages, or answers, are missing."""
    protocol, sample = held.recipe.protocol(prompts), held.table.sample(0)
    if protocol.mode is Mode.generate:
        metric(protocol.metric)([(Prediction(sample.uid, "", output=sample.answers[0].text), sample)])


def carved(table: Table, rows: int) -> INTEGERS:
    """(<= rows,) rows, those of one picture together, in an order that only the pictures' names decide."""
    owner, names = table.references()
    encoded = names.dictionary_encode()
    hashes = np.array([keyed.key("selection", name) for name in encoded.dictionary.to_pylist()], dtype=np.uint64)
    first = np.unique(owner, return_index=True)[1]  # each row's first picture; every row has one
    return np.lexsort((np.arange(len(table)), hashes[encoded.indices.to_numpy()[first]]))[:rows]
