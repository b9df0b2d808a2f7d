from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from instructblip.evaluation.runs import (
    find_run,
    read_run,
    read_scores,
    run_folders,
    runs_table,
    scores_table,
)

from .conftest import World

ROOT = Path(__file__).resolve().parents[2]


def write_run(folder: Path, rows: str = "", finished: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = "experiment: [vicuna7b, ablation/x]\nmixture: {name: no_web}\nseed: 7\nsteps: 40\n"
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    if rows:
        (folder / "metrics.csv").write_text(f"step,train/loss,train/lr\n{rows}", encoding="utf-8")
    if finished:
        (folder / "finished.json").write_text("{}", encoding="utf-8")
    return folder


def shown(table: object) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program and says on its last line of output whether a model could have been built."""
    run = f"import sys, {name}; sys.argv[1:] = {list(arguments)!r}; {name}.main()"
    code = f"{run}; print('transformers' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path)
    assert find_run("one", tmp_path / "runs") == find_run(str(folder), tmp_path / "elsewhere") == folder
    assert find_run("runs/one", tmp_path / "elsewhere").resolve() == folder


def test_an_unknown_run_names_those_there_are(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    with pytest.raises(ValueError, match="Known: one"):
        find_run("two", tmp_path)
    with pytest.raises(ValueError, match="Known: none"):
        find_run("two", tmp_path / "nowhere")


def test_a_run_shows_its_last_row(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one", rows="10,3.5,1\n20,2.25,1\n", finished=True))
    assert (run.experiment, run.seed, run.steps) == ("vicuna7b + ablation/x", 7, 40)
    assert (run.step, run.loss, run.finished) == (20, 2.25, True)
    assert "20 of 40" in shown(runs_table([run]))


def test_a_run_that_has_logged_nothing_is_shown_too(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one"))
    assert (run.step, run.loss, run.finished) == (None, None, False)
    assert "unfinished" in shown(runs_table([run])) and "no_web" in shown(runs_table([run]))


def test_every_score_of_a_run_is_shown(world: World) -> None:
    for changes in ({}, {"limit": 2}):
        world.predict("vsr", **changes)
        world.score("vsr", **changes)
    scores = read_scores(world.run)
    assert [facts["limit"] for facts in scores] == [None, 2]
    text = shown(scores_table(("one", facts) for facts in scores))
    assert "0.4545" in text and "first 2 only" in text


def test_evaluate_scores_without_a_model(world: World) -> None:
    write_run(world.run)
    world.predict("vsr")
    paths = (f"paths.data={world.data}", f"paths.runs={world.run.parent}")
    result = program("evaluate", "run=one", "recipe=[vsr]", "predict=false", *paths)
    assert result.stdout.endswith("False\n"), result.stderr
    assert "0.4545" in result.stdout
    (facts,) = read_scores(world.run)
    assert facts == asdict(world.score("vsr"))


def test_report_shows_runs_and_scores_and_an_empty_folder_what_to_run(world: World, tmp_path: Path) -> None:
    write_run(world.run, rows="20,2.25,1\n")
    world.predict("vsr")
    world.score("vsr")
    result = program("report", f"paths.runs={world.run.parent}")
    assert "2.2500" in result.stdout and "0.4545" in result.stdout, result.stderr
    result = program("report", f"paths.runs={tmp_path / 'nothing'}")
    assert "python train.py" in result.stdout, result.stderr


def test_folders_that_are_no_runs_are_not_listed(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    (tmp_path / "two").mkdir()
    assert [folder.name for folder in run_folders(tmp_path)] == ["one"]
