"""The Lightning datamodule: the stream's steps for this rank, from the first unfinished one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from instructblip import recipes as recipe_files
from instructblip.choices import Leakage, Objective, SelectionSource
from instructblip.config.training import TrainConfig
from instructblip.data.captions import AnyCollator, CaptionCollator
from instructblip.data.collate import Batch, Collator
from instructblip.data.evaluated import read_by_content, read_by_name
from instructblip.data.leakage.audit import strict_rows
from instructblip.data.lineage import Seen, refuse_evaluated, refuse_inherited, refuse_leaks
from instructblip.data.mixture import Pictures, Source, Stream
from instructblip.data.shards import MediaPool
from instructblip.data.shares import incomplete, members, shares
from instructblip.data.steps import Place, Reader, Step, Steps, stream_hash
from instructblip.data.tables import Table, manifest_hash
from instructblip.data.templates import Template, wordings
from instructblip.models.tokenizers import caption_tokenizer, tokenizers
from instructblip.names import require
from instructblip.recipes import Recipe, fingerprint
from instructblip.training.checkpoint import inherited
from instructblip.training.selection import Selection, select
from instructblip.training.signals import outlive_the_job

HASHED_STEPS = 20  # of the stream, however long the run: those that differ here saw different data
LOOKED_UP = 256  # rows of each table whose pictures are looked for at the start (ours); all others when they are read
WORKER_TIMEOUT = 300  # seconds without a step before a hung data worker is an error


@dataclass(frozen=True)
class TrainingSet:
    """The mixture's recipes, their prepared tables, and the stream over them."""

    recipes: list[Recipe]
    tables: list[Table]
    wordings: list[tuple[Template, ...]]  # of each recipe
    manifests: list[str]
    stream: Stream
    leaks: list[list[str]]  # of each recipe, the evaluated splits its rows are taken from; only with allow_leak
    selection: Selection

    @property
    def names(self) -> list[str]:
        return [recipe.name for recipe in self.recipes]

    def lineage(self, steps: int) -> list[Seen]:
        """What the first `steps` steps drew, also under the names of the evaluated splits it was taken from."""
        seen = []
        for place, drawn in enumerate(self.stream.drawn(steps).tolist()):
            recipe, table = self.recipes[place], self.tables[place]
            known = recipe.name in recipe_files.names()  # elsewhere, a view of the user's is its parent
            names = [f"{recipe.name if known else recipe.table}/{table.split}", *self.leaks[place]]
            splits = [name.split("/") for name in names]
            seen += [Seen(name, split, self.manifests[place], len(table), drawn) for name, split in splits]
        return seen


def mixture_recipes(config: TrainConfig) -> list[Recipe]:
    """The mixture's recipes, refused when they may not be trained on. Raises ValueError naming absent ones."""
    chosen, absent = members(config.mixture, config.partition.groups())
    if absent:
        raise ValueError(f"mixture {config.mixture.name} has no recipe yet for {', '.join(absent)}")
    refuse_leaks(chosen, config.partition, config.purpose, config.allow_leak, config.mixture.splits)
    refuse_inherited(inherited(config.model), config.partition, config.purpose, config.allow_leak)
    return chosen


def training_set(config: TrainConfig) -> TrainingSet:
    """Opens the mixture's tables. Raises ValueError naming what is missing and the command that makes it."""
    chosen = mixture_recipes(config)
    known = [*recipe_files.names(), *(recipe.name for recipe in chosen)]
    for name in config.transforms.recipes:
        require(name, known, "recipe in transforms.recipes")
    asked = shares(chosen, config.mixture)
    if lacking := incomplete(asked, config.mixture, Path(config.paths.data)):
        raise ValueError(lacking)
    held_back = select(config, chosen)
    opened = [_open(config, recipe, held_back) for recipe in chosen]
    tables = [table for table, _ in opened]
    leaks = [_leaks(config, recipe, table.split) for recipe, table in zip(chosen, tables, strict=True)]
    worded = [wordings(recipe, table.split, config.wording) for recipe, table in zip(chosen, tables, strict=True)]
    sources = [
        Source(
            share.recipe.name, len(table), len(own), share.probability,
            Pictures(*table.pictures()) if config.per_image > 1 else None,
        )
        for share, table, own in zip(asked, tables, worded, strict=True)
    ]  # fmt: skip
    sizes = (config.batch_size, config.group_size)
    stream = Stream(sources, config.seed, *sizes, config.mixture.draw, config.per_image)
    return TrainingSet(chosen, tables, worded, [manifest for _, manifest in opened], stream, leaks, held_back)


def _leaks(config: TrainConfig, recipe: Recipe, split: str) -> list[str]:
    """Evaluated splits the rows are taken from, by name or as a copy. Raises ValueError unless that is allowed."""
    copied = read_by_content(recipe, split, Path(config.paths.data))
    refuse_evaluated(recipe, copied, config.allow_leak)
    return list(dict.fromkeys([*read_by_name(recipe, split), *copied]))


def _open(config: TrainConfig, recipe: Recipe, selection: Selection) -> tuple[Table, str]:
    """The table a recipe trains on and its manifest hash; another set of rows of it is another manifest."""
    data, split = Path(config.paths.data), recipe.training_split(config.mixture.splits)
    kept = None if config.leakage is Leakage.paper else strict_rows(data, recipe.table, split)
    table = Table.of(data, recipe, split, kept)
    if (left := selection.kept_rows(table)) is not None:
        kept = left if kept is None else kept[left]
        table = Table.of(data, recipe, split, kept)
    manifest = manifest_hash(data, recipe.table, split)
    return table, manifest if kept is None else fingerprint([manifest, sha256(kept.tobytes()).hexdigest()])


def collator(config: TrainConfig, encoder_decoder: bool) -> AnyCollator:
    """What the objective reads of a row."""
    if config.objective is Objective.stage1:
        return CaptionCollator(caption_tokenizer(config.model.qformer), config.model.stage1.max_length)
    return Collator.of(config.model, tokenizers(config.model), encoder_decoder)


class StepData(LightningDataModule):
    """Steps `first` to the run's end; rank and world size come from the trainer."""

    def __init__(self, config: TrainConfig, data: TrainingSet, collator: AnyCollator, first: int = 0) -> None:
        super().__init__()
        self.config, self.data, self.collator, self.first = config, data, collator, first
        media, size = Path(config.paths.data) / "media", config.model.vision.image_size
        self.reader = Reader(data.stream, data.recipes, data.tables, data.wordings, media, config.transforms, size)
        for table in data.tables:
            check_pictures(table, self.reader.pools)

    def facts(self) -> dict[str, Any]:
        """What was trained on: recipe and table hashes, and the hash of the stream's first steps."""
        tables = dict(zip(self.data.names, self.data.manifests, strict=True))
        hashes = {recipe.name: fingerprint(recipe) for recipe in self.data.recipes}
        facts = {"recipes": hashes, "tables": tables, "stream": stream_hash(self.reader, 0, HASHED_STEPS)}
        selection = self.data.selection
        return facts | ({} if selection.source is SelectionSource.none else {"selection": selection.facts()})

    def held_back(self) -> list[Batch]:
        """The step after the run's last one, which no step trains on (though its rows may have been drawn before).

        Of the first stage one micro-batch, which is contrasted with itself.
        """
        batches = self.steps(self.config.steps, self.config.steps + 1).read(self.config.steps).batches
        return batches[:1] if self.config.objective is Objective.stage1 else batches

    def steps(self, first: int, last: int, rank: int = 0, world: int = 1) -> Steps:
        place = Place(rank, world, self.config.trainer.micro_batch_size)
        group_size = self.config.loss.group_size or self.config.group_size
        return Steps(self.reader, self.collator, place, group_size, first, last)

    def train_dataloader(self) -> DataLoader[Step]:
        assert self.trainer is not None
        workers = self.config.trainer.num_workers
        return DataLoader(
            self.steps(self.first, self.config.steps, self.trainer.global_rank, self.trainer.world_size),
            batch_size=None,  # an item is a whole step already
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,  # a fresh interpreter takes seconds to import torch
            timeout=WORKER_TIMEOUT if workers else 0,
            worker_init_fn=outlive_the_job,
            pin_memory=self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
        )


def check_pictures(table: Table, pools: Mapping[str, MediaPool]) -> None:
    """Raises ValueError when pictures of rows spread over the table are in no pool, as when an index was lost."""
    rows = np.unique(np.linspace(0, len(table) - 1, LOOKED_UP).astype(np.int64))
    shown = table.shown(rows)
    lacking = [f"{pool}/{key}" for pool, key in shown if pool not in pools or key not in pools[pool]]
    if lacking:
        raise ValueError(
            f"{len(lacking):,} of {len(shown):,} pictures looked up for {table.path} are not in the media pool, the "
            f"first is {lacking[0]}: a shard or its index (.arrow) is missing. Put it back, or delete the table and "
            f"prepare it again"
        )
