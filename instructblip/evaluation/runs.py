"""Runs on disk: finding one, and showing what was trained and how it scored."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table

from instructblip.choices import Images, Purpose
from instructblip.files import read_json

CONSTANT = "constant"  # in place of a checkpoint's hash: the best constant answer, without a model
RELEASED = "released"  # folder of models that others trained, and of their results


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory as `train.py` leaves it; `step` and `loss` are the last logged ones, if any."""

    folder: Path
    experiment: str
    mixture: str
    seed: int
    steps: int
    step: int | None
    loss: float | None
    finished: bool
    published: bool = False  # by others; nothing was trained


def find_run(run: str, runs: Path) -> Path:
    """The folder of a run given by path or by name. Raises ValueError listing the runs there are."""
    for folder in (Path(run), runs / run):
        if (folder / "config.yaml").is_file():
            return folder
    known = ", ".join(name_of(folder) for folder in run_folders(runs)) or "none"
    raise ValueError(f"run={run} is neither a run directory nor the name of one in {runs}. Known: {known}")


def name_of(folder: Path) -> str:
    """As `run=` takes it, where the runs are in one place."""
    return f"{RELEASED}/{folder.name}" if folder.parent.name == RELEASED else folder.name


def data_folder(run: Path) -> str:
    """Where the run's own prepared data lie."""
    return str(OmegaConf.load(run / "config.yaml").paths.data)


def run_folders(runs: Path) -> list[Path]:
    """Runs of ours, then the published models that were placed beside them."""
    return [path.parent for pattern in ("*", f"{RELEASED}/*") for path in sorted(runs.glob(f"{pattern}/config.yaml"))]


def read_run(folder: Path) -> Run:
    config = OmegaConf.load(folder / "config.yaml")
    rows = read_rows(folder / "metrics.csv")
    last = rows[-1] if rows else None
    return Run(
        folder=folder,
        experiment=" + ".join(config.experiment),
        mixture=config.mixture.name,
        seed=config.seed,
        steps=config.steps,
        step=int(last["step"]) if last else None,
        loss=float(loss) if last and (loss := last["train/loss"]) else None,
        finished=(folder / "finished.json").is_file(),
        published=OmegaConf.select(config, "purpose") == Purpose.evaluate.value,
    )


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Every scores.json of a run."""
    return [read_json(path) for path in sorted(folder.glob("eval/*/*/scores.json"))]


def overview(names: Sequence[str], place: Path) -> list[Table | str]:
    """The runs of these names, or all, with their scores; in place of what is not there the command that makes it."""
    folders = [find_run(name, place) for name in names] or run_folders(place)
    if not folders:
        return [f"No runs in {place}. Train one with `python train.py experiment=miniature`."]
    scores = [(name_of(folder), facts) for folder in folders for facts in read_scores(folder)]
    missing = f"No scores yet. Evaluate with `python evaluate.py run={folders[0].name} recipe=vsr`."
    return [runs_table(read_run(folder) for folder in folders), scores_table(scores) if scores else missing]


def runs_table(runs: Iterable[Run]) -> Table:
    table = _table("run", "state", "experiment", "mixture", "seed", "step", "loss")
    for run in runs:
        state = "published" if run.published else "finished" if run.finished else "unfinished"
        step = f"{run.step or 0} of {run.steps}"
        loss = "" if run.loss is None else f"{run.loss:.4f}"
        table.add_row(name_of(run.folder), state, run.experiment, run.mixture, str(run.seed), step, loss)
    return table


def scores_table(scores: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    """One line a score, given with the name of its run; a control or a part of the split is marked so."""
    table = _table("run", "recipe", "prompts", "metric", "value", "95 %", "n", "note")
    for run, facts in scores:
        value = "undefined" if facts["value"] is None else f"{facts['value']:.4f}"
        prompts = "-".join(filter(None, [facts["profile"], facts["variant"]]))
        names = (run, facts["recipe"], prompts, facts["metric"])
        interval = "{:.2f}-{:.2f}".format(*facts["interval"]) if facts["interval"] else ""
        table.add_row(*names, value, interval, str(facts["n"]), note_of(facts))
    return table


def note_of(facts: Mapping[str, Any]) -> str:
    """What a score is, where it is not of every question about its own picture."""
    part = "" if facts["limit"] is None else f"first {facts['limit']} only"
    control = "best constant answer" if facts["checkpoint"] == CONSTANT else Images(facts["images"]).note
    return ", ".join(filter(None, [control, part]))


def _table(*columns: str) -> Table:
    table = Table()
    for name in columns:
        number = name in ("seed", "step", "loss", "value", "95 %", "n")
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return table


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that a run writes; none where there is no file, a last line cut short is left out."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]
