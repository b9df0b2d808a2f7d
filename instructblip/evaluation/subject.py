"""What is asked: a run of ours, or a checkpoint that others trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from instructblip.config.data import PathsConfig
from instructblip.evaluation.runs import RELEASED, data_folder, find_run, name_of

if TYPE_CHECKING:  # scoring needs no model
    from instructblip.models.loaded import Loaded


class Named(Protocol):
    """What of a program's config names one model."""

    run: str | None
    checkpoint: str | None
    config: str | None
    overrides: list[str]
    name: str
    paths: PathsConfig


@dataclass(frozen=True)
class Subject:
    """A model before it is loaded: its name, and the folder whose `eval/` holds its results."""

    name: str
    results: Path
    data: str  # prepared data it is asked about; empty where none are named
    checkpoint: Path | None  # of others

    def prepared(self) -> str:
        """`data`. Raises ValueError where there are none."""
        if not self.data:
            raise ValueError("checkpoint=... was trained on no data of ours: say which to ask it about, paths.data=DIR")
        return self.data

    def load(self, config: Named, device: str) -> Loaded:
        """Raises ValueError when weights are missing, or do not fit the language model they are laid over."""
        if self.checkpoint is None:
            from instructblip.training.run import load_model

            return load_model(self.results, device)
        from instructblip.models.convert import open_source
        from instructblip.models.loaded import Loaded, weights_hash
        from instructblip.models.tokenizers import tokenizers

        source = open_source(self.checkpoint, Path(config.config) if config.config else None, config.overrides)
        model = source.model()
        return Loaded(source.config, model.to(device).eval(), tokenizers(source.config), weights_hash(model))


def subject(config: Named) -> Subject:
    """What `run=` or `checkpoint=` names. Raises ValueError when neither or both are given, or nothing is there."""
    if (config.run is None) == (config.checkpoint is None):
        raise ValueError("give run=NAME, or checkpoint=PATH of a Hugging Face folder or a LAVIS file: one of the two")
    if config.run is not None:
        run = find_run(config.run, Path(config.paths.runs))
        return Subject(name_of(run), run, config.paths.data or data_folder(run), None)
    path = Path(str(config.checkpoint))
    if not path.exists():
        raise ValueError(f"checkpoint={path} is not there")
    name = config.name or path.stem
    return Subject(f"{RELEASED}/{name}", Path(config.paths.runs) / RELEASED / name, config.paths.data, path)
