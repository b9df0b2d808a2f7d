"""Picks to Batches: the reading half of the stream, on one rank.

One item is a whole step: the list of micro-batches this rank computes before the weights move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from instructblip.config.data import TransformsConfig
from instructblip.data.captions import AnyCollator
from instructblip.data.collate import Batch, Row
from instructblip.data.media import BadMedia, decoded
from instructblip.data.mixture import Pick, Stream, deal
from instructblip.data.sample import Answer, Sample
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table
from instructblip.data.templates import Example, Template, render
from instructblip.data.transforms import training_pixels
from instructblip.recipes import Recipe

CHARS_PER_TOKEN = 4  # of English under the LLMs' tokenizers; only the balance between ranks depends on it
WORDING_TOKENS = 12  # a template's own words
PICTURE_TOKENS = 51  # what a picture and its 32 queries cost, in text tokens of Vicuna-7B (2.0 TFLOP at 24, 8.4 at 260)
FILLER = Example("nothing", "nothing", "", "filler", "")


@dataclass(frozen=True)
class Step:
    """This rank's part of step `number`; `bad` names the pictures that could not be read and why."""

    number: int
    batches: list[Batch]
    bad: list[str]
    lost: list[Pick]  # their places in the stream

    def pin_memory(self) -> Step:
        """The data loader pins what it knows, or what has this method."""
        return replace(self, batches=[batch.pin_memory() for batch in self.batches])


@dataclass(frozen=True)
class Place:
    """Which of `world` equal readers this is, and how much it takes at once."""

    rank: int
    world: int
    micro_batch_size: int


class Reader:
    """Tables, pictures and wordings behind a stream's picks."""

    def __init__(
        self, stream: Stream, recipes: Sequence[Recipe], tables: Sequence[Table],
        wordings: Sequence[tuple[Template, ...]], media: Path, transforms: TransformsConfig, image_size: int,
    ) -> None:  # fmt: skip
        self.stream, self.recipes, self.tables, self.wordings = stream, list(recipes), list(tables), list(wordings)
        self.pools = {name: MediaPool(media / name) for name in {recipe.pool for recipe in recipes}}
        self.transforms, self.image_size = [transforms.of(recipe.name) for recipe in recipes], image_size

    def read(self, pick: Pick) -> tuple[Example, Tensor]:
        """The worded Example and its pixels, uint8 (3, S, S), of a clip (F, 3, S, S).

        The frames of a clip share their augmentations. Raises BadMedia naming the Sample.
        """
        sample = self.tables[pick.source].sample(pick.row)
        try:
            pictures = [decoded(self.pools[ref.pool].read(ref.key)) for ref in sample.shown]
        except BadMedia as error:
            raise BadMedia(sample.uid, str(error)) from error
        own = self.transforms[pick.source]
        frames = [training_pixels(picture, self.image_size, own, pick.augmentation) for picture in pictures]
        return self._worded(pick, sample), frames[0] if len(frames) == 1 else torch.stack(frames)

    def example(self, pick: Pick) -> Example:
        return self._worded(pick, self.tables[pick.source].sample(pick.row))

    def _worded(self, pick: Pick, sample: Sample) -> Example:
        template = self.wordings[pick.source][pick.template]
        return render(sample, template, drawn_answer(sample, pick.answer), self.recipes[pick.source].response)

    def costs(self, picks: Sequence[Pick]) -> list[int]:
        """What each pick costs, about, in tokens of the language model, from the lengths in the tables."""
        chars = np.zeros(len(picks), dtype=np.int64)
        for source, table in enumerate(self.tables):
            mine = [place for place, pick in enumerate(picks) if pick.source == source]
            if mine:
                chars[mine] = table.chars(np.array([picks[place].row for place in mine])).sum(axis=1)
        return (chars // CHARS_PER_TOKEN + WORDING_TOKENS + PICTURE_TOKENS).tolist()


class Steps(IterableDataset[Step]):
    """Steps first..last-1 as `place` sees them; data workers take every n-th step, so their order is the stream's."""

    def __init__(
        self, reader: Reader, collator: AnyCollator, place: Place, loss_group_size: int, first: int, last: int
    ) -> None:
        self.reader, self.collator, self.place = reader, collator, place
        self.loss_group_size, self.first, self.last = loss_group_size, first, last
        if place.micro_batch_size % reader.stream.per_image:
            raise ValueError(
                f"trainer.micro_batch_size={place.micro_batch_size} is not a multiple of "
                f"per_image={reader.stream.per_image}"
            )

    def __iter__(self) -> Iterator[Step]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(self.first + offset, self.last, stride):
            yield self.read(number)

    def read(self, number: int) -> Step:
        picks = self.reader.stream.step(number)
        step = Step(number, [], [], [])
        for places in self._dealt(picks)[self.place.rank]:
            step.batches.append(self._batch({place: picks[place] for place in places}, step))
        return step

    def _dealt(self, picks: Sequence[Pick]) -> list[list[list[int]]]:
        """`[rank][micro-batch]` -> positions of the step; samples of one picture stay together."""
        k = self.reader.stream.per_image
        costs = np.array(self.reader.costs(picks)).reshape(-1, k).sum(axis=1)
        dealt = deal(costs.tolist(), self.place.world, self.place.micro_batch_size // k)
        return [[[unit * k + i for unit in units for i in range(k)] for units in batches] for batches in dealt]

    def _batch(self, picks: dict[int, Pick], step: Step) -> Batch:
        """A micro-batch of what can be read; the rest is noted in `step`."""
        rows: list[Row] = []
        pixels: list[Tensor] = []
        shown: dict[tuple[int, int], int] = {}  # picks of one picture share their augmentation
        for place, pick in picks.items():
            try:
                if (picture := (pick.source, pick.augmentation)) in shown:
                    example = self.reader.example(pick)
                else:
                    example, image = self.reader.read(pick)
                    shown[picture] = len(pixels)
                    pixels.append(image)
            except BadMedia as error:
                step.bad.append(str(error))
                step.lost.append(pick)
                continue
            group = place // self.loss_group_size
            rows.append(Row(example, shown[picture], pick.source, group, place, template=pick.template))
        if not rows:  # every rank has the same number of micro-batches, and none is empty
            pixels.append(torch.zeros(3, self.reader.image_size, self.reader.image_size, dtype=torch.uint8))
            rows.append(Row(FILLER, 0, counts=False))
        return self.collator.training(rows, pixels)


def drawn_answer(sample: Sample, u: float) -> Answer:
    """An answer by its votes: `u` in [0, 1) is a place on the line of all votes."""
    given = [answer for answer in sample.answers if answer.text.strip()]
    if not given:
        raise ValueError(f"{sample.uid} has no answer to train on")
    place = u * sum(answer.votes for answer in given)
    for answer in given:
        place -= answer.votes
        if place < 0:
            return answer
    return given[-1]


def stream_hash(reader: Reader, first: int, last: int) -> str:
    """sha256 over (dataset, uid, template, augmentation seed) of every sample of the steps, in order."""
    digest = hashlib.sha256()
    for number in range(first, last):
        for pick in reader.stream.step(number):
            example = reader.example(pick)
            digest.update(f"{example.recipe}\t{example.uid}\t{example.template}\t{pick.augmentation}\n".encode())
    return digest.hexdigest()
