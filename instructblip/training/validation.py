"""A validation: the loss on rows that were held back, and the score of what the model generates for them.

All processes take part, each with as many batches as every other; the answers come together on every process and are
scored on the first. Of a sharded model every process computes everything, since all of them are needed for each token
and answers differ in length. Nothing is drawn and nothing of the training moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from instructblip.config.training import TrainConfig
from instructblip.data import keyed
from instructblip.data.collate import Row
from instructblip.data.sample import MediaRef, Sample
from instructblip.data.shards import MediaPool
from instructblip.data.steps import drawn_answer
from instructblip.data.templates import Example, wordings
from instructblip.data.templates import render as worded
from instructblip.evaluation.answering import answer, collator, decoding, family
from instructblip.evaluation.features import read_picture
from instructblip.evaluation.measures import metric
from instructblip.evaluation.predictions import Prediction
from instructblip.evaluation.questions import by_length, render
from instructblip.models.loaded import Loaded
from instructblip.protocols import Mode
from instructblip.recipes import Recipe
from instructblip.training.objectives import token_nll
from instructblip.training.selection import HeldBack, Selection

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """This process among those that validate together."""

    rank: int
    world: int

    def share(self, batches: Sequence[T]) -> list[tuple[T, bool]]:
        """Its batches, as many as everyone's; False marks one that is done for company and does not count."""
        rounds = math.ceil(len(batches) / self.world)
        mine = range(self.rank, rounds * self.world, self.world)
        return [(batches[min(at, len(batches) - 1)], at < len(batches)) for at in mine]

    def gathered(self, own: list[T]) -> list[T]:
        """What all processes have."""
        if self.world == 1:
            return own
        everyones: list[list[T]] = [[]] * self.world
        torch.distributed.all_gather_object(everyones, own)
        return [each for part in everyones for each in part]


@dataclass(frozen=True)
class Report:
    """`values` by `val/<recipe>/<metric>`, `score` the mean over the scored recipes, `samples` some of the answers."""

    values: dict[str, float]
    score: float | None
    samples: list[dict[str, str]]


class Validation:
    """What is the same at every validation of a run: the questions, and the wording in which a loss is taken."""

    def __init__(self, config: TrainConfig, selection: Selection) -> None:
        self.settings, self.prompts = config.validation, config.selection.prompts
        self.held_back, self.wording = list(selection.held_back), config.wording
        media = Path(config.paths.data) / "media"
        self.pools = {name: MediaPool(media / name) for name in {held.recipe.pool for held in self.held_back}}

    @property
    def names(self) -> list[str]:
        """Of the values, in the order of a report's."""
        scores = [self.score_name(held.recipe) for held in self.held_back if held.scored]
        return [*scores, *(f"val/{held.recipe.name}/loss" for held in self.held_back)]

    def score_name(self, recipe: Recipe) -> str:
        return f"val/{recipe.name}/{recipe.protocol(self.prompts).metric}"

    def report(self, loaded: Loaded, place: Place, precision: AbstractContextManager[Any]) -> Report:
        """The model is put into evaluation and back; all processes call this together and have the same numbers."""
        device = next(loaded.model.parameters()).device
        training = loaded.model.training
        loaded.model.eval()
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), precision:
            losses = {f"val/{held.recipe.name}/loss": self._loss(loaded, held, place) for held in self.held_back}
            scored = [held for held in self.held_back if held.scored]
            answers = [self._answers(loaded, held, place) for held in scored]
        loaded.model.train(training)
        own = [self._score(held, said) for held, said in zip(scored, answers, strict=True)] if place.rank == 0 else []
        scores = place.gathered(own)
        samples = [row for held, said in zip(scored, answers, strict=True) for row in self._samples(held, said)]
        named = {self.score_name(held.recipe): score for held, score in zip(scored, scores, strict=True)}
        return Report({**named, **losses}, sum(scores) / len(scores) if scores else None, samples)

    def _loss(self, loaded: Loaded, held: HeldBack, place: Place) -> float:
        """The mean over the tokens of one response a row, under one training wording, both drawn by its uid."""
        samples = [held.table.sample(row) for row in range(len(held.table))]
        samples.sort(key=lambda sample: (-sum(map(len, map(str, sample.slots.values()))), sample.uid))
        size = self.settings.batch_size
        device = next(loaded.model.parameters()).device
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for batch, counts in place.share([samples[at : at + size] for at in range(0, len(samples), size)]):
            rows, pixels = self._rows(held, batch, loaded.config.vision.image_size)
            tensors = collator(loaded).training(rows, pixels).to(device)
            assert tensors.loss_weight is not None
            nll = token_nll(loaded.model, tensors)  # (B, T)
            sums += counts * torch.stack([(nll * tensors.loss_weight).sum(), tensors.loss_weight.sum()]).double()
        if place.world > 1:
            torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1])

    def _rows(self, held: HeldBack, samples: Sequence[Sample], size: int) -> tuple[list[Row], list[Tensor]]:
        """The Samples worded, and their distinct pictures (3, S, S) or clips (F, 3, S, S)."""
        shown: dict[tuple[MediaRef, ...], Tensor] = {}
        for sample in samples:
            if sample.shown not in shown:
                frames = [read_picture(sample.uid, ref, self.pools, size) for ref in sample.shown]
                shown[sample.shown] = frames[0] if len(frames) == 1 else torch.stack(frames)
        places = {media: place for place, media in enumerate(shown)}
        return [Row(self._example(held, sample), places[sample.shown]) for sample in samples], list(shown.values())

    def _example(self, held: HeldBack, sample: Sample) -> Example:
        choices = wordings(held.recipe, held.table.split, self.wording)
        place = np.arange(2, dtype=np.uint64)
        wording, said = keyed.uniform(keyed.key("validation", sample.uid), place).tolist()
        chosen = choices[int(wording * len(choices))]
        return worded(sample, chosen, drawn_answer(sample, said), held.recipe.response)

    def _answers(self, loaded: Loaded, held: HeldBack, place: Place) -> dict[str, Prediction]:
        """By uid, in the order of the table."""
        protocol = held.recipe.protocol(self.prompts)
        settings: Mapping[str, Any] = {}
        if protocol.mode is Mode.generate:
            settings = decoding(protocol.decoding, family(loaded))
        questions = render(held.table, protocol.prompts[self.prompts], None)
        own: list[Prediction] = []
        for batch, counts in place.share(by_length(questions, self.settings.batch_size)):
            said = answer(loaded, held.table, self.pools, batch, protocol.mode, settings)
            own += said if counts else []
        found = {each.uid: each for each in place.gathered(own)}
        return {question.uid: found[question.uid] for question in questions}

    def _score(self, held: HeldBack, said: Mapping[str, Prediction]) -> float:
        pairs = [(prediction, held.table.sample(row)) for row, prediction in enumerate(said.values())]
        value = metric(held.recipe.protocol(self.prompts).metric)(pairs).value
        if value is None:
            raise ValueError(f"the {len(pairs)} selection rows of {held.recipe.name} have no score: hold more back")
        return value

    def _samples(self, held: HeldBack, said: Mapping[str, Prediction]) -> list[dict[str, str]]:
        """The first answer about each of the first pictures."""
        first: dict[tuple[MediaRef, ...], tuple[Prediction, Sample]] = {}
        for row, prediction in enumerate(said.values()):
            if len(first) < self.settings.samples:
                sample = held.table.sample(row)
                first.setdefault(sample.shown, (prediction, sample))
        rows = []
        for prediction, sample in first.values():
            rows.append({
                "recipe": held.recipe.name,
                "uid": sample.uid,
                "picture": " ".join(f"{ref.pool}/{ref.key}" for ref in sample.shown),
                "instruction": prediction.prompt,
                "answer": _said(prediction, sample),
                "truth": _truth(sample),
            })  # fmt: skip
        return rows


def _said(prediction: Prediction, sample: Sample) -> str:
    """The text, or the candidate with the highest score."""
    if prediction.scores is None:
        return prediction.output or ""
    best = max(range(len(prediction.scores)), key=prediction.scores.__getitem__)
    return sample.candidates.items[best] if sample.candidates and sample.candidates.items else f"class {best}"


def _truth(sample: Sample) -> str:
    """The answers, each once, or the gold candidate."""
    if sample.answers:
        return " | ".join(dict.fromkeys(each.text for each in sample.answers))
    assert sample.gold is not None
    return sample.candidates.items[sample.gold] if sample.candidates and sample.candidates.items else str(sample.gold)
