"""Two runs of one seed each, compared over what both were asked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from instructblip.evaluation.tables import ablations
from instructblip.evaluation.tables.cells import fill
from instructblip.evaluation.tables.published import Column, PaperTable, load
from instructblip.evaluation.tables.results import results
from tests.evaluation.conftest import World, world  # noqa: F401

from .conftest import PAPER

ABLATED = "ablation/no_balancing"


@pytest.fixture
def table() -> PaperTable:
    """Table 2 of one column, and of a mean of this column with itself."""
    columns = {"vsr": load("table1").columns["vsr"], "mean": Column("mean", mean_of=["vsr", "vsr"])}
    return replace(load("table2"), columns=columns)


def trained(world: World, place: Path, *experiment: str, seed: int = 1, **likes: float) -> None:  # noqa: F811
    """A run that answers VSR by what it likes."""
    shutil.rmtree(world.run / "eval", ignore_errors=True)
    world.model.likes |= likes
    world.predict("vsr")
    world.score("vsr")
    folder = shutil.copytree(world.run, place / f"{len(experiment)}-s{seed}", dirs_exist_ok=True)
    sides = {"held_in": PAPER.held_in, "held_out": PAPER.held_out}
    facts = {"experiment": list(experiment), "seed": seed, "partition": sides, "paths": {"data": str(world.data)}}
    OmegaConf.save(OmegaConf.create(facts), folder / "config.yaml")


def told(table: PaperTable, place: Path) -> dict[str, list[str]]:
    cells = fill(table, results([], place), PAPER, draws=200)
    sheet = ablations.sheet(table, cells, draws=200)
    assert sheet and "whether other seeds would say the same is not known" in " ".join(sheet.notes)
    return {line[1]: line[3:] for line in sheet.lines if "Vicuna-7B" in line[0] and "balancing" in line[0]}


def test_one_seed_compares_two_runs_and_not_the_recipes(world: World, table: PaperTable, tmp_path: Path) -> None:  # noqa: F811
    """One run says of every statement that it is true, the other that it is false."""
    place = tmp_path / "runs"
    trained(world, place, "vicuna7b")
    trained(world, place, "vicuna7b", ABLATED, yes=-9.0, true=-9.0)
    found = told(table, place)
    value, bounds, _, exact, said = found["VSR"]
    ours = [result.scores[0].facts["value"] for result in results([], place)]
    assert value == f"{100 * (ours[1] - ours[0]):+.1f}" and value != "+0.0"
    assert float(bounds.split(" to ")[0]) < float(value) < float(bounds.split(" to ")[1])
    assert said.startswith("these two runs, not the recipes: ") and "other recipe" in said
    assert exact == "1.000", "each run alone has 5 and 6 items right"
    assert found["mean"][0] == value and found["mean"][3] == "" and found["mean"][4].startswith("these two runs")


def test_two_paired_seeds_compare_the_recipes(world: World, table: PaperTable, tmp_path: Path) -> None:  # noqa: F811
    for seed in (1, 2):
        trained(world, tmp_path / "runs", "vicuna7b", seed=seed)
        trained(world, tmp_path / "runs", "vicuna7b", ABLATED, seed=seed)
    assert told(table, tmp_path / "runs")["VSR"][4].startswith("recipes, 2 paired seeds: no difference shown")


def test_runs_that_were_asked_other_items_are_not_compared(world: World, table: PaperTable, tmp_path: Path) -> None:  # noqa: F811
    place = tmp_path / "runs"
    trained(world, place, "vicuna7b")
    trained(world, place, "vicuna7b", ABLATED)
    (path,) = (place / "2-s1").glob("eval/vsr/*/predictions.jsonl")
    path.write_text(path.read_text() + "\n")
    assert "not what was scored" in told(table, place)["VSR"][4]
