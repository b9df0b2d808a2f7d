"""How long all ranks wait for the slowest: `python experiments/benchmarks/wait.py`.

The largest cost of a rank over the mean cost of the ranks, in expectation, for the paper's mixture at batch 128. Cost:
text tokens, and a picture with its 32 queries as 51 of them (Vicuna-7B). Three rules: each rank draws a dataset of its
own for its share of the batch (LAVIS, whose ranks have seeds of their own), groups of 8 are dealt whole, samples are
dealt. `padded` counts every row of a micro-batch as its longest, over the same mean: what a rank without packed rows
computes. Text lengths: the mean of each dataset (estimates from its templates and papers), times a log-normal factor
of mean 1 and sigma 0.5 (ours), or with --data those of prepared tables. It ends with how long the deal itself takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from instructblip import recipes
from instructblip.data.mixture import Source, Stream, deal
from instructblip.data.steps import CHARS_PER_TOKEN, PICTURE_TOKENS, WORDING_TOKENS
from instructblip.data.tables import Table

BATCH, GROUP, MICRO, STEPS = 128, 8, 8, 1000
RANKS = (2, 8, 16, 32, 64)
TOKENS = {  # of instruction and response, mean
    "coco_caption": 24, "web_capfilt": 24, "textcaps": 76, "vqav2": 24, "okvqa": 24, "aokvqa": 29, "ocrvqa": 28,
    "vqav2_vqg": 30, "okvqa_vqg": 30, "aokvqa_vqg": 30, "llava_conversation": 85, "llava_detail": 148,
    "llava_reasoning": 140,
}  # fmt: skip
DRAWN = 100_000  # lengths of each dataset
Ranks = list[list[list[int]]]  # [rank][micro-batch] -> costs


def lengths(name: str, data: Path | None, rng: np.random.Generator) -> np.ndarray:
    """Costs of a dataset's rows, in tokens."""
    if data is None:
        text = TOKENS[name] * np.exp(rng.normal(-0.125, 0.5, DRAWN))
    else:
        recipe = recipes.load(name)
        table = Table.of(data, recipe, recipe.train[0])
        text = table.chars(np.arange(len(table))).sum(axis=1) / CHARS_PER_TOKEN + WORDING_TOKENS
    return np.maximum(1, text).astype(int) + PICTURE_TOKENS


def micro_batches(costs: list[int]) -> list[list[int]]:
    return [costs[at : at + MICRO] for at in range(0, len(costs), MICRO)]


def own_dataset(costs: dict[str, np.ndarray], p: np.ndarray, ranks: int, rng: np.random.Generator) -> Ranks:
    """Each rank draws one dataset and its share of the batch from it."""
    drawn = rng.choice(len(p), ranks, p=p)
    each = list(costs.values())
    return [micro_batches(rng.choice(each[dataset], BATCH // ranks).tolist()) for dataset in drawn]


def groups_dealt(step: list[int], ranks: int) -> Ranks:
    groups = [step[at : at + GROUP] for at in range(0, BATCH, GROUP)]
    dealt = deal([sum(group) for group in groups], ranks, -(-len(groups) // ranks))
    return [[groups[place] for batch in rank for place in batch] for rank in dealt]


def samples_dealt(step: list[int], ranks: int) -> Ranks:
    return [
        [[step[place] for place in batch] for batch in rank] for rank in deal(step, ranks, min(MICRO, BATCH // ranks))
    ]


def waits(rule: Callable[[int], Ranks]) -> tuple[float, float]:
    """Expected largest cost of a rank over the expected mean, as it is and with padding."""
    largest, padded, mean = [], [], []
    for number in range(STEPS):
        ranks = rule(number)
        costs = [sum(map(sum, rank)) for rank in ranks]
        largest.append(max(costs))
        padded.append(max(sum(len(batch) * max(batch) for batch in rank if batch) for rank in ranks))
        mean.append(sum(costs) / len(costs))
    return float(np.mean(largest) / np.mean(mean)), float(np.mean(padded) / np.mean(mean))


def milliseconds(task: Callable[[int], object]) -> float:
    """The median of 200."""
    taken = []
    for number in range(200):
        began = time.perf_counter()
        task(number)
        taken.append(time.perf_counter() - began)
    return 1000 * float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="prepared tables (paths.data) whose text lengths are taken")
    data, rng = parser.parse_args().data, np.random.default_rng(0)
    sizes = [recipe.sampling.size for name in TOKENS if (recipe := recipes.load(name)).sampling]
    p = np.sqrt(sizes) / np.sqrt(sizes).sum()
    costs = {name: lengths(name, data, rng) for name in TOKENS}
    sources = [Source(name, len(costs[name]), 1, float(share)) for name, share in zip(TOKENS, p, strict=True)]

    def steps(batch: int, group: int) -> Callable[[int], list[int]]:
        stream = Stream(sources, 0, batch, group)
        names = list(TOKENS)
        return lambda number: [int(costs[names[pick.source]][pick.row]) for pick in stream.step(number)]

    mixed = [steps(BATCH, GROUP)(number) for number in range(STEPS)]
    print("ranks | own dataset padded | groups padded | samples padded")
    for ranks in RANKS:
        rules: list[Callable[[int], Ranks]] = [
            lambda _, ranks=ranks: own_dataset(costs, p, ranks, rng),  # type: ignore[misc]
            lambda number, ranks=ranks: groups_dealt(mixed[number], ranks),  # type: ignore[misc]
            lambda number, ranks=ranks: samples_dealt(mixed[number], ranks),  # type: ignore[misc]
        ]
        print(f"{ranks:5} | " + " | ".join("{:.2f} {:.2f}".format(*waits(rule)) for rule in rules), flush=True)
    large = [steps(192, 12)(number) for number in range(100)]
    print(f"192 samples dealt to 64 ranks: {milliseconds(lambda number: deal(large[number % 100], 64, 3)):.2f} ms")


if __name__ == "__main__":
    main()
