"""What a run has really seen: samples and tokens per dataset, template and task, against what its mixture asks for.

Tokens are those the language model reads of a prompt (with its BOS and chat turn) and learns of a response (with its
EOS), counted in the batches. Rows with unreadable pictures are counted apart, fillers nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instructblip.data.steps import Step
from instructblip.training.datamodule import TrainingSet

COUNTS = ("samples", "instruction_tokens", "answer_tokens", "unreadable")
ALARM = 1e-5  # ours: of honest runs, looked at 120 times each, five in a thousand went below 1e-4 (simulated)
FEWEST = 5  # expected groups; below it the distribution of chi-square is not near enough, so datasets are pooled
Facts = dict[str, Any]


class Ledger:
    """Counts of this process, and of all processes up to the last `gather`."""

    def __init__(self, data: TrainingSet) -> None:
        self.stream, self.recipes = data.stream, data.recipes
        self.cells = [
            (recipe.name, template.id)
            for recipe, own in zip(data.recipes, data.wordings, strict=True)
            for template in own
        ]
        self._first = [sum(map(len, data.wordings[:number])) for number in range(len(data.wordings))]  # of each dataset
        self._own = [[0] * len(COUNTS) for _ in self.cells]
        self.total = torch.zeros(len(self.cells), len(COUNTS), dtype=torch.int64)

    def carry(self, facts: Facts) -> None:
        """Goes on from the facts of a checkpoint.

        Raises ValueError when they name a dataset or template that the mixture does not have.
        """
        known = {cell: number for number, cell in enumerate(self.cells)}
        for name, dataset in facts["datasets"].items():
            for template, counts in dataset["templates"].items():
                if (name, template) not in known:
                    raise ValueError(
                        f"the checkpoint was trained on template {template!r} of {name}, which the mixture has no "
                        "more: go on with the recipes and templates it began with, or begin another run with name=..."
                    )
                self.total[known[name, template]] = torch.tensor([counts[kind] for kind in COUNTS])

    def add(self, step: Step) -> None:
        """Enters this process's part of a step; turns that an encoder-decoder reads as rows are of one sample."""
        for batch in step.batches:
            entered: set[int] = set()
            for source, template, place, (prompt, response) in zip(
                batch.recipe.tolist(), batch.template, batch.place.tolist(), batch.tokens, strict=True
            ):
                if response:  # a filler has none
                    cell = self._own[self._first[source] + template]
                    cell[0] += place not in entered
                    entered.add(place)
                    cell[1] += prompt
                    cell[2] += response
        for pick in step.lost:
            self._own[self._first[pick.source] + pick.template][3] += 1

    def gather(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Adds what every process counted since the last time; all of them call it after the same step."""
        self.total += sum_over_ranks(torch.tensor(self._own, dtype=torch.int64))
        self._own = [[0] * len(COUNTS) for _ in self.cells]

    def facts(self, steps: int) -> Facts:
        """The whole ledger after `steps` steps, as JSON: what a checkpoint carries on."""
        expected = [self.stream.batch_size * steps * source.probability for source in self.stream.sources]
        rows = {cell: dict(zip(COUNTS, row, strict=True)) for cell, row in zip(self.cells, self._rows(), strict=True)}
        datasets = {}
        for recipe, wanted in zip(self.recipes, expected, strict=True):
            own = {template: counts for (name, template), counts in rows.items() if name == recipe.name}
            summed = _summed(list(own.values()))
            datasets[recipe.name] = {"task": recipe.task, "expected_samples": wanted, **summed, "templates": own}
        tasks = {
            task: _summed([facts for facts in datasets.values() if facts["task"] == task])
            for task in dict.fromkeys(recipe.task for recipe in self.recipes)
        }
        test = self.test(steps)
        return {"steps": steps, "test": vars(test), "tasks": tasks, "datasets": datasets}

    def test(self, steps: int) -> ChiSquare:
        """Whether the datasets came as often as their probabilities say, in groups, since those are what is drawn."""
        samples = torch.zeros(len(self.recipes), dtype=torch.float64)
        for row, count in zip(self._dataset_of_cells(), self.total[:, 0].tolist(), strict=True):
            samples[row] += count
        groups = samples / self.stream.group_size
        return chi_square(
            groups.tolist(),
            [self.stream.groups_per_step * steps * source.probability for source in self.stream.sources],
        )

    def alarm(self, steps: int) -> str | None:
        """One line when the datasets did not come as the mixture asks for."""
        test = self.test(steps)
        if not test.alarm:
            return None
        facts = self.facts(steps)["datasets"]
        furthest = max(facts, key=lambda name: abs(facts[name]["samples"] - facts[name]["expected_samples"]))
        worst = facts[furthest]
        return (
            f"ALARM: after {steps:,} steps the datasets did not come as their probabilities say: chi-square "
            f"{test.statistic:.1f} over {test.freedom} degrees of freedom, p = {test.p:.1e} (below {ALARM:g}); most of "
            f"all {furthest}, {worst['samples']:,} samples where {worst['expected_samples']:,.0f} are expected"
        )

    def _rows(self) -> list[list[int]]:
        rows: list[list[int]] = self.total.tolist()
        return rows

    def _dataset_of_cells(self) -> list[int]:
        order = {recipe.name: number for number, recipe in enumerate(self.recipes)}
        return [order[name] for name, _ in self.cells]


@dataclass(frozen=True)
class ChiSquare:
    """Pearson's test; `p` is the probability of a statistic this large by chance, None with fewer than two cells."""

    statistic: float
    freedom: int
    p: float | None
    alarm: bool


def chi_square(seen: Sequence[float], expected: Sequence[float]) -> ChiSquare:
    """Pearson's test of counts against expected ones; cells below `FEWEST` are pooled.

    Even draws stay nearer to what is expected than chance would, so for them the test only errs on the quiet side.
    """
    large = [pair for pair in zip(seen, expected, strict=True) if pair[1] >= FEWEST]
    small = [pair for pair in zip(seen, expected, strict=True) if pair[1] < FEWEST]
    pooled = (sum(count for count, _ in small), sum(wanted for _, wanted in small))
    cells = [*large, pooled] if pooled[1] >= FEWEST else large
    if len(cells) < 2:
        return ChiSquare(0.0, 0, None, False)
    statistic = sum((count - wanted) ** 2 / wanted for count, wanted in cells)
    freedom = len(cells) - 1
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    p = torch.special.gammaincc(half[0], half[1]).item()  # the survival function of chi-square
    return ChiSquare(statistic, freedom, p, p < ALARM)


def _summed(rows: Sequence[Facts]) -> dict[str, int]:
    return {kind: sum(row[kind] for row in rows) for kind in COUNTS}
