"""Instruction-aware less unaware by how much there is to see: a few queries hold a picture of two things, not of seven.

Of runs in an embedded world, whose scenes are at hand in words. The dose is the number of things in the picture, beside
that of the queries; the response is the lead over the run that differs in the awareness alone.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from instructblip.evaluation.controls import read_scenes, words_of
from instructblip.evaluation.measures import metric
from instructblip.evaluation.tables.endpoint import held_out, own_score
from instructblip.evaluation.tables.measuring import data_of, pairs
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result

UNAWARE = "ablation/no_instruction_aware"
THINGS = range(1, 8)
HEADER = ("experiment", "seeds", *(f"{number} things" for number in THINGS))
NOTE = (
    "Points by which the aware run is ahead, mean over seeds, and how many items of all seeds. Items of all held-out "
    "sets that both runs answered and whose metric is a share of them, so no captions."
)
Crowd = Mapping[int, Mapping[str, float]]  # things in the picture -> item -> its value


def sheet(found: Sequence[Result]) -> Sheet | None:
    """None without two runs that differ in the awareness alone."""
    groups: dict[str, dict[int, tuple[Crowd, Crowd]]] = defaultdict(dict)
    notes = [NOTE]
    for run, other in _pairs(found):
        try:
            groups[" + ".join(run.experiment)][run.seed] = by_things(run), by_things(other)
        except ValueError as error:
            notes.append(f"{run.name} and {other.name}: not at hand: {error}")
    lines = [
        [name, ", ".join(map(str, sorted(seeds))), *(_cell(list(seeds.values()), number) for number in THINGS)]
        for name, seeds in sorted(groups.items())
    ]
    title = "Aware less unaware by the things in the picture"
    return Sheet(title, HEADER, lines, notes) if lines or len(notes) > 1 else None


def _pairs(found: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """Of one seed, aware and unaware, with all else alike."""
    synthetic = [result for result in found if result.synthetic]
    for run in synthetic:
        for other in synthetic:
            if (other.experiment, other.seed) == ([*run.experiment, UNAWARE], run.seed):
                yield run, other


def by_things(run: Result) -> Crowd:
    """What a run answered of its own pictures. Raises ValueError saying why that is not at hand."""
    scenes = read_scenes(data_of(run))
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for score in filter(None, (own_score(run, recipe) for recipe in held_out(run))):
        asked = pairs(run, score)
        values = metric(str(score.facts["metric"]))(asked).items
        if values is None or any(value is not None and not 0 <= value <= 1 for value in values):
            continue
        for value, (_, sample) in zip(values, asked, strict=True):
            number = things(words_of(sample.media[0], scenes) or "")
            if value is not None and number:
                found[number][sample.uid] = value
    return found


def things(scene: str) -> int:
    """How many there are in a scene in words, of a clip at its beginning; 0 where none can be told apart."""
    first = scene.removeprefix("first ").split(".")[0]
    return first.count(",") + 1 if re.match(r"(small|large) ", first) else 0


def _cell(seeds: Sequence[tuple[Crowd, Crowd]], number: int) -> str:
    leads, items = [], 0
    for aware, unaware in seeds:
        both = aware.get(number, {}).keys() & unaware.get(number, {}).keys()
        if both:
            leads.append(statistics.fmean(aware[number][uid] - unaware[number][uid] for uid in sorted(both)))
            items += len(both)
    return f"{100 * statistics.fmean(leads):+.1f} ({items:,})" if leads else ""
