"""A short form of `make tables` as a user runs it: trained, scored and reported, and nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.miniature_tables import Plan, found_in
from instructblip.data.tables import Table, table_path
from instructblip.evaluation.tables.scaled import Row, ScaledTable, ScaledTables
from tests.conftest import World, run_program

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
TWO = ScaledTables(
    ["miniature"], {"causal": []}, [200], ["vqav2"],
    [ScaledTable("two", ["vsr"], [Row("tuned"), Row("names", ["multitask/dataset_names"], "dataset_names")])],
)  # fmt: skip


def program(*arguments: str) -> str:
    done = run_program(*arguments, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tables_are_trained_scored_and_reported(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "worlds" / "200"
    (place / "prepared").mkdir(parents=True)
    (place / "raw").symlink_to(world.raw)
    for name in ("tables", "media"):
        (place / "prepared" / name).symlink_to(world.data / name)
    names = [name.split("/") for name in Table(table_path(world.data, "vsr", "test")).names()]
    lines = [json.dumps({"pool": pool, "key": key, "text": "small red circle center."}) for pool, key in names]
    (place / "prepared" / "scenes.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("INSTRUCTBLIP_WORLDS", str(tmp_path / "worlds"))
    unmade = ["model.vision.weights=null", "model.llm.weights=null", "model.init=null", "model.random_init=true"]
    train = ["steps=2", "batch_size=8", "trainer.num_workers=0", "mixture=scratch", *unmade]
    plan = Plan(TWO, [200], tmp_path / "runs", tmp_path / "worlds", train=train, evaluate=["recipe=vsr", "limit=4"])
    said = [program(*command) for command in plan.trained()]
    assert "done" in said[0]
    for command in plan.scored(found_in(plan.runs)):
        program(*command)
    scores = {path.parent.name.split("-", 1)[0] for path in plan.runs.glob("*/eval/vsr/*/scores.json")}
    assert scores == {"paper", "dataset_names"}
    assert len(list(plan.runs.glob("miniature-s200*/eval/vsr/*/scores.json"))) == 5  # own, three controls, constant
    program("report.py", "table=all", f"paths.runs={plan.runs}")
    report = (plan.runs / "report" / "synthetic.md").read_text(encoding="utf-8")
    assert "Figure 4 in miniature" in report and "Declared hypotheses" in report and "not run yet" in report
    *_, constant = plan.scored(found_in(plan.runs))
    again = [program(*command) for command in [*plan.trained(), constant]]
    assert "is finished" in again[0] and "all of it is scored" in again[1]
