"""Runs and their scores as a table sees them: which experiment they are, in which world, and what they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from instructblip.config.data import PartitionConfig
from instructblip.data.lineage import Seen
from instructblip.evaluation.runs import find_run, run_folders
from instructblip.files import read_json
from instructblip.recipes import fingerprint

STAMP = "miniature.json"  # lies in the raw tree of an embedded world
NEEDED = ("recipe", "profile", "metric", "value", "n", "images", "limit", "checkpoint", "manifest")
EXPERIMENTS = Path(__file__).resolve().parents[3] / "conf" / "experiment"
NO_MEANING = ("experiment", "seed", "name", "resume", "dry_run", "paths", "trainer", "logger")  # for what is learnt


@dataclass(frozen=True)
class Score:
    """A scores.json and where it lies."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def outdated(self) -> list[str]:
        """Facts that a score of an older form lacks."""
        return [name for name in NEEDED if name not in self.facts]

    def answers(self, recipe: str, variant: str | None, profile: str) -> bool:
        """Whether it is of this protocol, with every question's own picture and prompts that were not cut."""
        wanted = {"recipe": recipe, "variant": variant, "profile": profile, "images": "own", "llm_limit": None}
        return all(self.facts.get(name) == value for name, value in wanted.items())


@dataclass(frozen=True)
class Result:
    """A run of ours, or the results of a checkpoint that others made (`config` is empty)."""

    folder: Path
    config: Mapping[str, Any]
    scores: tuple[Score, ...]
    outdated: tuple[Score, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def experiment(self) -> list[str]:
        return list(self.config.get("experiment", []))

    @property
    def mixture(self) -> str:
        return str(self.config.get("mixture", {}).get("name", ""))

    @cached_property
    def synthetic(self) -> bool:
        """Of an embedded world: its raw tree has the world's stamp, or no weight of the model was ever pretrained."""
        raw = self.config.get("paths", {}).get("raw")
        stamped = bool(raw) and (Path(raw) / STAMP).is_file()
        return stamped or "miniature" in self.experiment or bool(self.config.get("model", {}).get("random_init"))

    def of_partition(self, partition: PartitionConfig) -> bool:
        own = self.config.get("partition", {})
        return all(set(own.get(side, [])) == set(getattr(partition, side)) for side in ("held_in", "held_out"))

    @cached_property
    def deviations(self) -> list[str]:
        """What is not as its experiment files say: the run is of another recipe of training, or not at its end."""
        if not self.config:
            return []
        finished = (self.folder / "finished.json").is_file()
        return [*([] if finished else ["the run is not finished"]), *_deviations(self.config, self.experiment)]

    @property
    def recipe(self) -> str:
        """Hash of all settings but the seed: runs that agree in it are seeds of one recipe of training."""
        return fingerprint({key: value for key, value in self.config.items() if key not in NO_MEANING})

    def lineage(self, checkpoint: str) -> list[Seen] | None:
        """What the scored weights have seen; None when their checkpoint is not known here."""
        from instructblip.training.checkpoint import checkpoints  # with torch and transformers, not needed for less

        saved = checkpoints(self.folder)
        if not saved:
            return None
        return next((each.lineage for each in saved if each.hash == checkpoint), saved[-1].lineage)


def results(names: Sequence[str], place: Path) -> list[Result]:
    """The named runs, or every run and foreign checkpoint under `place`. Raises ValueError for an unknown name."""
    released = sorted(path for path in (place / "released").glob("*") if path.is_dir())
    if not names:
        return [_result(folder) for folder in [*run_folders(place), *released]]
    foreign = {path.name: path for path in released}
    return [_result(foreign[name] if name in foreign else find_run(name, place)) for name in names]


def _result(folder: Path) -> Result:
    path = folder / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=True) if path.is_file() else {}
    assert isinstance(config, dict)
    found = [Score(path, read_json(path)) for path in sorted(folder.glob("eval/*/*/scores.json"))]
    result = Result(folder, {str(key): value for key, value in config.items()}, ())
    current = tuple(score for score in found if not score.outdated)
    return replace(result, scores=current, outdated=tuple(score for score in found if score.outdated))


def _deviations(config: Mapping[str, Any], experiment: Sequence[str]) -> list[str]:
    asked: dict[str, Any] = {}
    for name in experiment:
        if (path := EXPERIMENTS / f"{name}.yaml").is_file():
            facts = OmegaConf.to_container(OmegaConf.load(path))
            assert isinstance(facts, dict)
            for default in facts.pop("defaults", []):
                group, option = next(iter(default.items())) if isinstance(default, dict) else ("", "")
                group = str(group).removeprefix("override ").lstrip("/")
                if group == "model":  # another mixture is named beside the cell instead
                    asked["model.name"] = option
            asked |= _leaves(facts)
    own = _leaves(config)
    return [
        f"{key} {own.get(key)}, not {value}"
        for key, value in sorted(asked.items())
        if not key.startswith(NO_MEANING) and own.get(key, value) != value
    ]


def _leaves(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
