"""Runs and their scores as a table sees them: which experiment they are, in which world, and what they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from instructblip import recipes
from instructblip.choices import Purpose, SelectionSource
from instructblip.config.data import PartitionConfig
from instructblip.data.lineage import Seen
from instructblip.evaluation.runs import RELEASED, find_run, name_of, run_folders
from instructblip.files import read_json
from instructblip.recipes import fingerprint

STAMP = "miniature.json"  # lies in the raw tree of an embedded world
NEEDED = ("recipe", "profile", "metric", "value", "n", "images", "limit", "checkpoint", "manifest")
EXPERIMENTS = Path(__file__).resolve().parents[3] / "conf" / "experiment"
NO_MEANING = ("experiment", "seed", "name", "resume", "dry_run", "paths", "trainer", "logger")  # for what is learnt
CHOSEN_ON_TEST = ("selection.source", SelectionSource.paper_guess.value)  # said of the columns it touches


@dataclass(frozen=True)
class Score:
    """A scores.json and where it lies."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def split(self) -> str:
        named = self.facts.get("split")
        return str(named or recipes.load(self.facts["recipe"]).protocol("paper", self.facts.get("variant")).split)

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
        return name_of(self.folder)

    @property
    def published(self) -> bool:
        """Of weights that others trained."""
        return not self.config or self.config.get("purpose") == Purpose.evaluate.value

    def stands_for(self, released: str) -> bool:
        """Whether it is of the published weights that a row names by their experiment."""
        return self.published and (self.experiment == [released] or (not self.config and self.name == released))

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
        embedded = any(name.split("/")[0] == "miniature" for name in self.experiment)
        return stamped or embedded or bool(self.config.get("model", {}).get("random_init"))

    def of_partition(self, partition: PartitionConfig) -> bool:
        own = self.config.get("partition", {})
        return all(set(own.get(side, [])) == set(getattr(partition, side)) for side in ("held_in", "held_out"))

    @cached_property
    def deviations(self) -> list[str]:
        """What is not as its experiment files say: the run is of another recipe of training, or not at its end."""
        if not self.config:
            return []
        finished = self.published or (self.folder / "finished.json").is_file()
        return [*([] if finished else ["the run is not finished"]), *_deviations(self.config, self.experiment)]

    @property
    def recipe(self) -> str:
        """Hash of all settings but the seed: runs that agree in it are seeds of one recipe of training."""
        return fingerprint({key: value for key, value in self.config.items() if key not in NO_MEANING})

    @cached_property
    def selected_on(self) -> frozenset[tuple[str, str]]:
        """(recipe, split) whose scores chose its checkpoint, where these are the paper's own columns."""
        settings = self.config.get("selection", {})
        if settings.get("source") != CHOSEN_ON_TEST[1]:
            return frozenset()
        chosen = [recipes.load(name) for name in settings["recipes"]]
        return frozenset((recipe.table, recipe.protocol(settings["prompts"]).split) for recipe in chosen)

    @cached_property
    def start(self) -> str:
        """What a fine-tuning began from: the name of a published start, or the one that is as tuned as its weights."""
        model = self.config.get("model", {})
        if isinstance(init := model.get("init"), str) and init in model.get("starts", {}):
            return init.removesuffix("_hf")
        own = self.config.get("mixture", {}).get("recipes", [])
        tuned = any(seen.drawn and seen.recipe not in own for seen in self.lineage("") or [])
        return "instructblip" if tuned else "blip2"

    def lineage(self, checkpoint: str) -> list[Seen] | None:
        """What the scored weights have seen; None when their checkpoint is not known here."""
        from instructblip.training.checkpoint import checkpoints  # with torch and transformers, not needed for less
        from instructblip.training.released import lineage

        if self.config and self.published:
            return lineage(self.folder)
        saved = checkpoints(self.folder)
        if not saved:
            return None
        return next((each.lineage for each in saved if each.hash == checkpoint), saved[-1].lineage)


def results(names: Sequence[str], place: Path) -> list[Result]:
    """The named runs, or every run and foreign checkpoint under `place`. Raises ValueError for an unknown name."""
    runs = run_folders(place)
    foreign = sorted(path for path in (place / RELEASED).glob("*") if path.is_dir() and path not in runs)
    if not names:
        return [_result(folder) for folder in [*runs, *foreign]]
    by_name = {f"{RELEASED}/{path.name}": path for path in foreign}
    return [_result(by_name[name] if name in by_name else find_run(name, place)) for name in names]


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
    tried: dict[str, list[str]] = {}  # the values of a declared grid
    for name in experiment:
        if (path := EXPERIMENTS / f"{name}.yaml").is_file():
            facts = OmegaConf.to_container(OmegaConf.load(path))
            assert isinstance(facts, dict)
            for default in facts.pop("defaults", []):
                group, option = next(iter(default.items())) if isinstance(default, dict) else ("", "")
                group = str(group).removeprefix("override ").lstrip("/")
                if group == "model":  # another mixture is named beside the cell instead
                    asked["model.name"] = option
            grid = facts.pop("hydra", {}).get("sweeper", {}).get("params", {})
            tried |= {key: [each.strip() for each in str(values).split(",")] for key, values in grid.items()}
            asked |= _leaves(facts)
    own = _leaves(config)
    return [
        f"{key} {own.get(key)}, not {value}"
        for key, value in sorted(asked.items())
        if not key.startswith(NO_MEANING)
        and own.get(key, value) != value
        and str(own[key]) not in tried.get(key, [])
        and (key, own[key]) != CHOSEN_ON_TEST
        and "${" not in str(value)  # a path
    ]


def _leaves(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
