"""What was declared of the embedded world (`experiments/miniature_hypotheses.yaml`), and which runs are of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from instructblip.evaluation.tables.results import NO_MEANING, STAMP, Result
from instructblip.files import read_json, read_yaml
from instructblip.names import require
from instructblip.recipes import fingerprint

DECLARED = Path(__file__).resolve().parents[2] / "experiments" / "miniature_hypotheses.yaml"
LEFT_OUT = (*NO_MEANING, "allow_change", "plan", "selfcheck")  # settings that change nothing that is learnt
WORLD = "world"  # the entry of `frozen` that is no arm


class How(Enum):
    lead = "lead"  # of the first arm over the second
    floors = "floors"  # sets on which the first arm beats every floor
    gap = "gap"  # the lead of the first over the second, less that between the wide arms


class Measure(Enum):
    endpoint = "endpoint"  # the mean normalised score of the held-out sets
    loss = "loss"  # of training, the mean of its last quarter: how well what is held in is answered; less is better


@dataclass
class Arm:
    experiment: list[str] = MISSING
    prompts: str = "paper"  # profile


@dataclass
class Part:
    how: How = MISSING
    first: str = MISSING
    second: str = ""
    wide_first: str = ""
    wide_second: str = ""
    of: Measure = Measure.endpoint
    at_least: int = 0  # sets


@dataclass
class Hypothesis:
    name: str = MISSING
    claim: str = MISSING
    parts: list[Part] = MISSING
    estimated: bool = False  # not tested


@dataclass
class Backbone:
    seeds: list[int] = MISSING
    base: str = ""


@dataclass
class Declaration:
    title: str = MISSING
    endpoint: str = MISSING
    alpha: float = MISSING
    seeds: list[int] = MISSING
    worlds: dict[int, int] = MISSING
    curve: list[int] = MISSING
    backbones: dict[str, Backbone] = MISSING
    arms: dict[str, Arm] = MISSING
    hypotheses: list[Hypothesis] = MISSING
    frozen: dict[str, str] = field(default_factory=dict)

    def seeds_of(self, part: Part) -> list[int]:
        return self.curve if part.how is How.gap else self.seeds

    def world_of(self, seed: int) -> int:
        return self.worlds.get(seed, seed)

    def backbone_of(self, seed: int) -> Backbone:
        return next(backbone for backbone in self.backbones.values() if seed in backbone.seeds)


def load(path: Path = DECLARED) -> Declaration:
    """Raises ValueError naming the file and an arm, a seed or a backbone that is not declared."""
    declared = read_yaml(path, Declaration)
    for hypothesis in declared.hypotheses:
        for part in hypothesis.parts:
            for arm in filter(None, (part.first, part.second, part.wide_first, part.wide_second)):
                require(arm, declared.arms, f"arm of {hypothesis.name} in {path}")
    for name in declared.frozen:
        require(name, [*declared.arms, WORLD], f"entry of frozen in {path}")
    placed = [seed for backbone in declared.backbones.values() for seed in backbone.seeds]
    if sorted(placed) != sorted([*declared.seeds, *declared.curve]):
        raise ValueError(
            f"{path}: the backbones have seeds {sorted(placed)}, declared are {declared.seeds} and {declared.curve}"
        )
    return declared


def settings_hash(config: Mapping[str, Any]) -> str:
    """Of all that is learnt by but the seed and where weights lie: the backbone's fingerprint tells which they are."""
    kept = {key: value for key, value in config.items() if key not in LEFT_OUT}
    model = {key: value for key, value in kept.get("model", {}).items() if key != "init"}
    parts = {
        name: {k: v for k, v in model[name].items() if k != "weights"} for name in ("vision", "llm") if name in model
    }
    return fingerprint(kept | {"model": model | parts})


def confirming(declared: Declaration, found: Sequence[Result]) -> dict[str, dict[int, Result]]:
    """Arm -> seed -> the run that is what was declared."""
    runs: dict[str, dict[int, Result]] = {name: {} for name in declared.arms}
    for name, run in meant(declared, found):
        if not misfits(declared, name, run):
            runs[name].setdefault(run.seed, run)
    return runs


def meant(declared: Declaration, found: Sequence[Result]) -> list[tuple[str, Result]]:
    """Finished runs of an arm's experiment with a declared seed, each with the arm."""
    seeds = {*declared.seeds, *declared.curve}
    finished = [run for run in found if run.seed in seeds and (run.folder / "finished.json").is_file()]
    return [(name, run) for name, arm in declared.arms.items() for run in finished if run.experiment == arm.experiment]


def misfits(declared: Declaration, arm: str, run: Result) -> list[str]:
    """In what a run is not what was declared and frozen."""
    if arm not in declared.frozen or WORLD not in declared.frozen:
        return ["the settings are not frozen"]
    found = []
    if settings_hash(run.config) != declared.frozen[arm]:
        found.append("its settings are not the frozen ones")
    if (world := world_of(run)) is None:
        found.append("the raw files of its world are not at hand")
    elif world != (declared.world_of(run.seed), declared.frozen[WORLD]):
        found.append(f"its world is number {world[0]} of sizes {world[1]}")
    wanted, base = declared.backbone_of(run.seed).base, base_of(run)
    if not wanted:
        found.append("no fingerprint of its backbone is declared")
    elif base != wanted:
        found.append(f"its backbone is {base}")
    return found


def base_of(run: Result) -> str | None:
    """The fingerprint of the frozen weights, as the last checkpoint names it."""
    saved = sorted((run.folder / "checkpoints").glob("step-*/state.json"))
    return str(read_json(saved[-1])["base"]) if saved else None


def world_of(run: Result) -> tuple[int, str] | None:
    """The seed of a run's world and the hash of everything else its stamp says; None where the raw tree is gone."""
    path = Path(run.config["paths"]["raw"]) / STAMP
    if not path.is_file():
        return None
    stamp = read_json(path)
    return int(stamp["seed"]), fingerprint({key: value for key, value in stamp.items() if key != "seed"})
