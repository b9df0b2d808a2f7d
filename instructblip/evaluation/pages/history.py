"""What a run directory says of its training: how it went, what it saw, what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructblip.data.lineage import Seen
from instructblip.evaluation.pages.plots import Chart, Points, chart
from instructblip.evaluation.runs import read_rows
from instructblip.evaluation.tables.results import Result
from instructblip.files import read_json, read_text
from instructblip.training.checkpoint import last_checkpoint

LOSS, RATE, SELECTION = "train/loss", "train/lr", "selection"


@dataclass(frozen=True)
class Dataset:
    """A line of the ledger."""

    name: str
    task: str
    expected: float
    seen: int
    instruction_tokens: int
    answer_tokens: int
    unreadable: int


@dataclass(frozen=True)
class Ledger:
    """What the mixture asked for and what came; `test` is Pearson's chi-square, in words."""

    steps: int
    datasets: Sequence[Dataset]
    test: str
    alarm: bool

    @property
    def most(self) -> float:
        """The length of the longest bar."""
        return max([1.0, *(max(each.expected, each.seen) for each in self.datasets)])


@dataclass(frozen=True)
class History:
    """`lacking` names what the run directory does not have (yet)."""

    name: str
    experiment: str
    synthetic: bool
    facts: Mapping[str, str]
    charts: Sequence[Chart]
    ledger: Ledger | None
    lineage: Sequence[Seen]
    deviations: Sequence[str]
    config: str
    lacking: Sequence[str] = field(default_factory=list)


def history(result: Result) -> History:
    """Reads the run; a checkpoint that others made has no history but its name."""
    folder = result.folder
    rows, selected = read_rows(folder / "metrics.csv"), read_rows(folder / "selection.csv")
    charts = [each for each in _charts(rows, selected) if each is not None]
    saved = last_checkpoint(folder)
    ledger = _ledger(folder / "ledger.json")
    absent = {
        "metrics.csv (no step was logged)": not rows,
        "selection.csv (validation.every is null)": not selected,
        "ledger.json": ledger is None,
        "a checkpoint": saved is None,
    }
    config = folder / "config.yaml"
    return History(
        name=result.name,
        experiment=" + ".join(result.experiment) or "a checkpoint of others",
        synthetic=result.synthetic,
        facts=_facts(result, rows),
        charts=charts,
        ledger=ledger,
        lineage=saved.lineage if saved else [],
        deviations=result.deviations,
        config=read_text(config) if config.is_file() else "",
        lacking=[name for name, lacks in absent.items() if lacks],
    )


def _charts(rows: Sequence[Mapping[str, str]], selected: Sequence[Mapping[str, str]]) -> list[Chart | None]:
    recipes = sorted(name for name in (rows[0] if rows else {}) if name.startswith(f"{LOSS}/"))
    losses = {"all": _series(rows, LOSS), **{name.removeprefix(f"{LOSS}/"): _series(rows, name) for name in recipes}}
    own = [name for name in (selected[0] if selected else {}) if name not in ("step", "seconds", SELECTION)]
    scores = [name for name in own if "loss" not in name]
    parts = {_short(name): _series(selected, name) for name in scores}
    return [
        chart("Training loss", losses),
        chart("Learning rate", {"rate": _series(rows, RATE)}),
        chart("Selection score", {"mean": _series(selected, SELECTION), **parts}),
        chart("Validation loss", {_short(name): _series(selected, name) for name in own if name not in scores}),
    ]


def _short(name: str) -> str:
    return name.removeprefix("val/")


def _series(rows: Sequence[Mapping[str, str]], column: str) -> Points:
    return [(float(row["step"]), float(row[column])) for row in rows if row.get(column)]


def _ledger(path: Path) -> Ledger | None:
    if not path.is_file():
        return None
    facts: dict[str, Any] = read_json(path)
    datasets = [
        Dataset(
            name, each["task"], each["expected_samples"], each["samples"], each["instruction_tokens"],
            each["answer_tokens"], each["unreadable"],
        )
        for name, each in facts["datasets"].items()
    ]  # fmt: skip
    test = facts["test"]
    said = "too few samples to test" if test["p"] is None else f"p = {test['p']:.3g}"
    return Ledger(facts["steps"], datasets, f"chi-square {test['statistic']:.1f}, {said}", test["alarm"])


def _facts(result: Result, rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    folder, config = result.folder, result.config
    logged = int(rows[-1]["step"]) if rows else 0
    finished = (folder / "finished.json").is_file()
    versions = read_json(folder / "versions.json") if (folder / "versions.json").is_file() else {}
    saved = last_checkpoint(folder)
    facts = {"folder": str(folder)}
    if config:
        facts |= {
            "state": f"{config['steps']:,} steps, finished" if finished else f"step {logged:,} of {config['steps']:,}",
            "seed": str(result.seed),
            "mixture": result.mixture,
            "batch": f"{config['batch_size']} samples in groups of {config['group_size']}",
            "model": str(config["model"]["name"]),
        }
    if "code" in versions:
        facts["code"] = versions.pop("code")
    if versions:
        facts["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    if saved:
        facts["checkpoint"] = saved.hash[:12]
    return facts
