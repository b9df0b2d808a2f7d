"""Scores in an embedded world between floor and ceiling, and their mean over the held-out sets: the endpoint.

CIDEr, AUROC, reciprocal ranks and accuracies cannot be averaged as they are. Normalised, 0 is the best floor (the best
constant answer, the language model without the picture, another picture of the same answer type) and 1 the language
model that is told the scene. One ruler measures all recipes of training of a seed: that of the run with the fewest
experiments laid over, which is the instruction-tuned one.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from instructblip import recipes
from instructblip.choices import Images
from instructblip.data.templates import templates
from instructblip.evaluation.runs import CONSTANT
from instructblip.evaluation.tables.results import Result, Score
from instructblip.recipes import fingerprint

MAJORITY, ALONE, DERANGED, TOLD = "majority", "text only", "deranged", "told"
FLOORS = (MAJORITY, ALONE, DERANGED)
CONTROLS = {MAJORITY: Images.none, ALONE: Images.none, DERANGED: Images.deranged, TOLD: Images.told}
ROOM = 0.05  # between floor and ceiling, of 1 (ours): with less a set cannot tell anything
PROFILE = "paper"


@dataclass(frozen=True)
class Standing:
    """A run's score on one held-out set, and what it is measured with; values as the metrics have them."""

    recipe: str
    run: Result
    score: Score
    controls: Mapping[str, tuple[Result, Score]]  # those that were run, by name

    @property
    def value(self) -> float:
        return float(self.score.facts["value"])

    def control(self, name: str) -> float | None:
        return float(self.controls[name][1].facts["value"]) if name in self.controls else None

    @property
    def floor(self) -> float | None:
        """The best one, once all are known."""
        known = [value for name in FLOORS if (value := self.control(name)) is not None]
        return max(known) if len(known) == len(FLOORS) else None

    @property
    def normalised(self) -> float | None:
        """None while a control is missing, and where floor and ceiling leave no room."""
        ceiling = self.control(TOLD)
        if self.floor is None or ceiling is None or ceiling - self.floor < ROOM:
            return None
        return (self.value - self.floor) / (ceiling - self.floor)


@dataclass(frozen=True)
class Endpoint:
    """The mean normalised score of a run."""

    standings: tuple[Standing, ...]
    lacking: tuple[str, ...] = ()  # sets without the score itself, or without a control
    cramped: tuple[str, ...] = ()  # sets whose floor reaches the ceiling, which are left out
    values: Mapping[str, float] = field(default_factory=dict)  # set -> normalised

    @property
    def value(self) -> float | None:
        """None while anything is lacking."""
        return statistics.fmean(self.values.values()) if self.values and not self.lacking else None


def endpoint(run: Result, found: Sequence[Result], profile: str = PROFILE) -> Endpoint:
    """Of a run over the held-out sets of its own partition, asked with the prompts of `profile`."""
    standings = [standing(run, name, found, profile) for name in held_out(run)]
    there = tuple(each for each in standings if each is not None)
    known = {each.recipe for each in there if each.floor is not None and each.control(TOLD) is not None}
    values = {each.recipe: value for each in there if (value := each.normalised) is not None}
    return Endpoint(
        there,
        tuple(name for name in held_out(run) if name not in known),
        tuple(name for name in held_out(run) if name in known and name not in values),
        values,
    )


def held_out(run: Result) -> list[str]:
    return list(run.config.get("partition", {}).get("held_out", []))


def standing(run: Result, recipe: str, found: Sequence[Result], profile: str = PROFILE) -> Standing | None:
    """None without a score of the set's own protocol."""
    chosen = own_score(run, recipe, profile)
    if chosen is None:
        return None
    fellows = sorted(
        (each for each in found if backbone(each) == backbone(run)),
        key=lambda each: (each.seed != run.seed, len(each.experiment), each.name),
    )
    controls = {}
    for name in CONTROLS:
        if hit := next(((each, score) for each in fellows for score in each.scores if _is(score, name, chosen)), None):
            controls[name] = hit
    return Standing(recipe, run, chosen, controls)


def own_score(run: Result, recipe: str, profile: str = PROFILE) -> Score | None:
    """Of the set's own protocol; of several the one over the most questions counts."""
    own = [score for score in run.scores if score.answers(recipe, None, profile) and score.facts["value"] is not None]
    return max(own, key=lambda score: (score.facts["n"], score.path.stat().st_mtime), default=None)


def backbone(run: Result) -> str:
    """Of the frozen parts as the config names them: runs that agree in it may be measured with one ruler."""
    model = run.config.get("model", {})
    weights = [model.get(part, {}).get("weights") for part in ("vision", "llm")]
    return fingerprint([model.get("name"), model.get("init"), *weights])


def is_template(wording: str, run: Result) -> bool:
    """Whether a prompt is word for word one of the held-in templates."""
    return wording in _held_in_templates(tuple(run.config.get("partition", {}).get("held_in", [])))


@cache
def _held_in_templates(held_in: tuple[str, ...]) -> frozenset[str]:
    families = {recipes.load(name).templates for name in held_in}
    return frozenset(each.text for family in families if family for each in templates(family))


def _is(score: Score, control: str, own: Score) -> bool:
    """Whether it is this control of the very questions that `own` answers."""
    facts = score.facts
    if facts["value"] is None or (facts["checkpoint"] == CONSTANT) is not (control == MAJORITY):
        return False
    wanted = {"images": CONTROLS[control].value, "profile": PROFILE, "variant": None, "llm_limit": None}
    same = ("recipe", "limit", "manifest")
    return all(facts.get(name) == value for name, value in wanted.items()) and all(
        facts[name] == own.facts[name] for name in same
    )
