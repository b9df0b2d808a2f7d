"""The paper's tables in miniature: one file says which runs they take, what trains them, and how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.miniature_tables import Plan, expected
from instructblip.cli import NEEDS_A_BASE
from instructblip.evaluation.declaration import load as declaration
from instructblip.evaluation.tables import scaled
from instructblip.evaluation.tables.results import EXPERIMENTS, results
from tests.evaluation.tables.conftest import Made
from tests.evaluation.tables.test_endpoint import RULER, scored, tuned


def test_rows_name_experiments_that_are_there_and_cover_the_declared_arms() -> None:
    declared = scaled.load()
    experiments = [experiment for experiment, _ in declared.experiments()]
    assert len(declared.tables) == 4 and len(experiments) == len(list(declared.families)) * 14
    assert all((EXPERIMENTS / f"{name}.yaml").is_file() for experiment in experiments for name in experiment)
    assert all(name.startswith(NEEDS_A_BASE) for experiment in experiments for name in experiment[1:])
    assert all(arm.experiment in experiments for arm in declaration().arms.values())
    assert declared.seeds == declaration().curve


def test_one_sweep_trains_all_and_every_run_is_scored(tmp_path: Path) -> None:
    plan = Plan(scaled.load(), [1, 2], tmp_path / "runs", tmp_path / "worlds", train=["steps=2"], evaluate=["limit=4"])
    sweep, *placed = plan.trained()
    assert sweep[:2] == ["train.py", "-m"] and sweep[3] == "seed=1,2" and sweep[-1] == "steps=2"
    assert sweep[2].count("[") == 24 and "control/backbone" not in sweep[2] and len(placed) == 4
    commands = list(plan.scored(expected))
    runs = {name for command in commands for name in command[2].removeprefix("run=").split(",")}
    assert len(runs) == 2 * 26 and "released/miniature+t5+backbone-s2" in runs
    assert all("missing=true" in command and "limit=4" in command for command in commands)
    controls = [command for command in commands if any(part.startswith(("images=", "constant=")) for part in command)]
    assert [command[2] for command in controls] == ["run=miniature-s1,miniature-s2,miniature+t5-s1,miniature+t5-s2"] * 2
    assert len([command for command in plan.prepared() if command[0] == "prepare.py"]) == 2


def test_cells_are_means_over_seeds_with_the_endpoint_behind(make: Made, runs: Path) -> None:
    tuned(make, "miniature", seed=1, **RULER)
    tuned(make, "miniature", seed=2, **RULER | {"own": 0.9})
    tuned(make, "miniature", "control/captions", seed=1, own=0.5)
    plain = tuned(make, "miniature", "multitask/plain", seed=1)
    scored(plain, {"own": 0.45}, profile="plain")
    tables = {sheet.title.split(":")[0]: sheet for sheet in scaled.sheets(results([], runs))}
    first = {line[0]: line for line in tables["Table 1 in miniature"].lines}
    assert first["instruction-tuned, causal"][1:3] == ["1, 2", "75.0\n60.0 to 90.0"]
    assert first["instruction-tuned, causal"][-1] == "75.0\n50.0 to 100.0"
    assert "Table 2 in miniature" not in tables  # of one row
    assert first["instruction-tuned, encoder-decoder"][-1] == "not run"
    fourth = {line[0]: line for line in tables["Figure 4 in miniature"].lines}
    assert (
        fourth["multitask plain input, causal"][2] == "45.0" and fourth["multitask plain input, causal"][-1] == "25.0"
    )


def test_a_column_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(scaled.TABLES.read_text().replace("columns: [gqa, vsr,", "columns: [gqq, vsr,"))
    with pytest.raises(ValueError, match="gqq"):
        scaled.load(path)
