"""The model that is looked into: a run of ours, or a checkpoint that others trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from instructblip.config.evaluation import ReportConfig
from instructblip.evaluation.parts import Share
from instructblip.evaluation.predict import device
from instructblip.evaluation.runs import RELEASED, find_run, name_of
from instructblip.inference import Assistant, load


@dataclass(frozen=True)
class Opened:
    """A model before it is loaded: its name, and the folder whose `lens/` holds what is found."""

    name: str
    results: Path
    load: Callable[[], Assistant]


def open_model(config: ReportConfig, run: str | None = None) -> Opened:
    """What `run=` (in its place `run`) or `checkpoint=` names. Raises ValueError when neither or both are given, or
    nothing is there."""
    place, name = device(config.device, Share()), run or config.run
    if run is None and (config.run is None) == (config.checkpoint is None):
        raise ValueError("lens=true looks into one model: give run=NAME, or checkpoint=PATH of others")
    if name is not None:
        folder = find_run(name, Path(config.paths.runs))
        return Opened(name_of(folder), folder, lambda: load(folder, place))
    path = Path(str(config.checkpoint))
    if not path.exists():
        raise ValueError(f"checkpoint={path} is not there")
    results = Path(config.paths.runs) / RELEASED / path.stem
    return Opened(f"{RELEASED}/{path.stem}", results, lambda: load(path, place, config.config, config.overrides))
