"""The list of what a run learns from is one, whoever reads it: any ranks, workers, micro-batches, and after any resume."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from instructblip.choices import Draw
from instructblip.config.training import TrainConfig
from instructblip.data import steps as module
from instructblip.data.collate import Row
from instructblip.data.mixture import Pick, Stream
from instructblip.data.steps import Place, Reader, Step, Steps, stream_hash
from instructblip.training.datamodule import StepData, collator, training_set

Tiny = Callable[..., TrainConfig]
RANKS, MICRO = (1, 2, 3, 8, 24, 64), (1, 2, 5)
STEPS = 4
WIDE = ("batch_size=24", "group_size=4")  # 6 groups: fewer than ranks, as the 24 samples are


class Recorder:
    """A collator that keeps what it is given: the rows of a micro-batch, each with the pick it was read from."""

    def training(self, rows: Sequence[Row], pixels: Sequence[Any]) -> list[tuple[Row, Any]]:
        assert rows, "no micro-batch is empty"
        return list(zip(rows, pixels, strict=True))


@pytest.fixture
def data(tiny: Tiny, request: pytest.FixtureRequest) -> StepData:
    config = tiny(*WIDE, f"mixture.draw={getattr(request, 'param', Draw.random).value}")
    return StepData(config, training_set(config), collator(config, encoder_decoder=False), first=0)


def ranks_of(data: StepData, ranks: int, micro: int, first: int, last: int) -> list[Steps]:
    """What each process of a run would build: a stream of its own, pictures left out, everything else as it is."""
    costs = lru_cache(None)(lambda picks: data.reader.costs(picks))  # the same on every rank
    return [
        Steps(reader(data.reader, costs), Recorder(), Place(rank, ranks, micro), 4, first, last)  # type: ignore[arg-type]
        for rank in range(ranks)
    ]


def reader(real: Reader, costs: Callable[[tuple[Pick, ...]], list[int]]) -> Reader:
    own, s = copy.copy(real), real.stream
    draw = Draw.even if type(s._draw).__name__ == "EvenDraw" else Draw.random
    own.stream = Stream(s.sources, s.seed, s.batch_size, s.group_size, draw)
    own.costs = lambda picks: costs(tuple(picks))  # type: ignore[method-assign]
    own.read = lambda pick: (real.example(pick), pick)  # type: ignore[method-assign, assignment, return-value]
    return own


def loaded(steps: Steps, workers: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Step]:
    """The steps as a DataLoader gives them: one of each worker in turn."""
    if not workers:
        yield from steps
        return
    parts = []
    for number in range(workers):
        monkeypatch.setattr(module, "get_worker_info", lambda n=number: SimpleNamespace(id=n, num_workers=workers))
        parts.append(list(steps))
    monkeypatch.setattr(module, "get_worker_info", lambda: None)
    for turn in range(len(parts[0])):
        yield from (part[turn] for part in parts if turn < len(part))


def checked(parts: Sequence[Step], picks: Sequence[Pick]) -> list[tuple[Row, Pick]]:
    """The rows of a step from its ranks, put back into order; every rank did as much as the others."""
    assert len({part.number for part in parts}) == 1 and not any(part.bad for part in parts)
    assert len({len(part.batches) for part in parts}) == 1, "as many micro-batches on every rank"
    batches: list[Any] = [batch for part in parts for batch in part.batches]
    real = [[(row, pick) for row, pick in batch if row.counts] for batch in batches]
    assert all(
        len(batch) == 1 and not batch[0][0].counts for batch, kept in zip(batches, real, strict=True) if not kept
    )
    place = {pick: number for number, pick in enumerate(picks)}
    assert len(place) == len(picks)
    for batch in real:
        positions = [place[pick] for _, pick in batch]
        assert positions == sorted(positions), "a micro-batch keeps the step's order"
    rows = [item for batch in real for item in batch]
    assert len(rows) == len(picks), "each sample exactly once"
    return sorted(rows, key=lambda item: place[item[1]])


def line(row: Row, pick: Pick) -> str:
    """As in `stream_hash`."""
    return f"{row.example.recipe}\t{row.example.uid}\t{row.example.template}\t{pick.augmentation}\n"


def run(
    data: StepData, ranks: int, micro: int, workers: int, first: int, last: int, patch: pytest.MonkeyPatch
) -> Iterator[tuple[int, list[tuple[Row, Pick]]]]:
    """Every step of a simulated run."""
    loaders = [loaded(steps, workers, patch) for steps in ranks_of(data, ranks, micro, first, last)]
    for number, parts in enumerate(zip(*map(list, loaders), strict=True), start=first):
        assert parts[0].number == number
        yield number, checked(parts, data.reader.stream.step(number))


@pytest.mark.parametrize("data", list(Draw), indirect=True, ids=str)
@pytest.mark.parametrize("micro", MICRO)
@pytest.mark.parametrize("ranks", RANKS)
def test_one_hash_at_every_topology(data: StepData, ranks: int, micro: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 0 to 4 workers; the wording, the drawn answer and the loss group of a sample are the same, too."""
    expected, alone = stream_hash(data.reader, 0, STEPS), list(run(data, 1, 24, 0, 0, STEPS, monkeypatch))
    workers = (ranks + micro) % 5
    digest = hashlib.sha256()
    for (number, rows), (_, whole) in zip(run(data, ranks, micro, workers, 0, STEPS, monkeypatch), alone, strict=True):
        for place, (row, pick) in enumerate(rows):
            digest.update(line(row, pick).encode())
            assert row.group == place // 4 and row.example == whole[place][0].example, (number, place)
    assert digest.hexdigest() == expected


@pytest.mark.parametrize("workers", range(5))
def test_one_hash_with_any_number_of_workers(data: StepData, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256()
    for _, rows in run(data, 3, 2, workers, 0, 11, monkeypatch):
        digest.update("".join(line(row, pick) for row, pick in rows).encode())
    assert digest.hexdigest() == stream_hash(data.reader, 0, 11)


@pytest.mark.parametrize("data", list(Draw), indirect=True, ids=str)
@pytest.mark.parametrize("cuts", [(0, 1, 9), (0, 5, 6, 9), (0, 8, 9), tuple(range(10))], ids=str)
def test_one_hash_after_resuming_anywhere_at_another_topology(
    data: StepData, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256()
    topologies = [(1, 5, 0), (64, 1, 1), (3, 2, 4), (8, 5, 2), (2, 1, 3), (24, 2, 0)]
    for part, (first, last) in enumerate(pairwise(cuts)):
        ranks, micro, workers = topologies[part % len(topologies)]
        for _, rows in run(data, ranks, micro, workers, first, last, monkeypatch):
            digest.update("".join(line(row, pick) for row, pick in rows).encode())
    assert digest.hexdigest() == stream_hash(data.reader, 0, 9)


@pytest.mark.parametrize(("ranks", "micro", "workers", "first"), [(2, 5, 2, 3), (64, 1, 0, 1), (3, 2, 4, 0)])
def test_real_loaders_read_the_same_rows(data: StepData, ranks: int, micro: int, workers: int, first: int) -> None:
    """With pictures and tensors; where ranks outnumber samples, what fills their micro-batches weighs nothing."""
    data.config.trainer.micro_batch_size = micro
    chosen = sorted({0, 1, ranks - 1})
    loaders = {
        rank: list(DataLoader(data.steps(first, first + 3, rank, ranks), batch_size=None, num_workers=workers))
        for rank in (chosen if workers else range(ranks))
    }
    for number in range(first, first + 3):
        parts = {rank: steps[number - first] for rank, steps in loaders.items()}
        assert len({len(part.batches) for part in parts.values()}) == 1
        uids = [data.reader.example(pick).uid for pick in data.reader.stream.step(number)]
        for part in parts.values():
            assert part.number == number
            for batch in part.batches:
                weighs = batch.loss_weight.any(dim=1).tolist()
                assert weighs == [uid != "filler" for uid in batch.uids] and (batch.labels != -100).any()
        taken = [uid for part in parts.values() for batch in part.batches for uid in batch.uids if uid != "filler"]
        if len(parts) == ranks:
            assert sorted(taken) == sorted(uids) and len(taken) == 24
        assert not set(taken) - set(uids)
