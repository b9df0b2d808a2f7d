"""Scores between floor and ceiling, and verdicts on the declared hypotheses, from runs written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instructblip.evaluation import declaration
from instructblip.evaluation.declaration import (
    Declaration,
    How,
    Hypothesis,
    Measure,
    Part,
    confirming,
    load,
    misfits,
    settings_hash,
)
from instructblip.evaluation.tables import hypotheses, normalised
from instructblip.evaluation.tables.endpoint import endpoint
from instructblip.evaluation.tables.report import embedded
from instructblip.evaluation.tables.results import results
from instructblip.files import read_json, write_json
from tests.conftest import ROOT

from .conftest import FACTS, PAPER, Made

RULER = {"own": 0.6, "constant": 0.2, "none": 0.3, "deranged": 0.1, "told": 0.9}
METRIC = {"metric": "multiple_choice", "n": 500, "wording": "Question: {question} Short answer:"}


def scored(folder: Path, values: Mapping[str, float], recipes: Any = PAPER.held_out, **facts: Any) -> None:
    for recipe in recipes:
        for kind, value in values.items():
            images = {"constant": "none"}.get(kind, kind)
            own = {"checkpoint": "constant"} if kind == "constant" else {}
            made = {**FACTS, **METRIC, "recipe": recipe, "images": images, "value": value, **own, **facts}
            write_json(folder / "eval" / recipe / f"{facts.get('profile', 'paper')}-{kind}" / "scores.json", made)


def tuned(make: Made, *experiment: str, seed: int = 1, **values: float) -> Path:
    folder = make(*experiment, seed=seed, config={"model": {"random_init": True}})
    scored(folder, values)
    return folder


def test_the_endpoint_is_the_mean_between_the_best_floor_and_the_ceiling(make: Made, runs: Path) -> None:
    folder = tuned(make, "miniature", **RULER)
    scored(folder, RULER | {"own": 0.9}, ["vsr"])
    (run,) = results([], runs)
    measured = endpoint(run, [run])
    assert measured.values["vsr"] == pytest.approx(1.0) and measured.values["gqa"] == pytest.approx(0.5)
    assert measured.value == pytest.approx((12 * 0.5 + 1.0) / 13) and len(measured.values) == 13


def test_what_lacks_a_control_has_no_endpoint_and_what_has_no_room_is_left_out(make: Made, runs: Path) -> None:
    folder = tuned(make, "miniature", **RULER)
    scored(folder, {"told": 0.32}, ["gqa"])
    (run,) = results([], runs)
    assert endpoint(run, [run]).cramped == ("gqa",) and endpoint(run, [run]).value == pytest.approx(0.5)
    (folder / "eval" / "vsr" / "paper-deranged" / "scores.json").unlink()
    (run,) = results([], runs)
    assert endpoint(run, [run]).lacking == ("vsr",) and endpoint(run, [run]).value is None


def test_an_arm_is_measured_with_the_ruler_of_the_instruction_tuned_run(make: Made, runs: Path) -> None:
    tuned(make, "miniature", seed=1, **RULER)
    tuned(make, "miniature", seed=2, **RULER | {"told": 0.7})
    tuned(make, "miniature", "ablation/no_balancing", seed=2, own=0.5, deranged=0.65)
    found = results([], runs)
    arm = next(run for run in found if len(run.experiment) == 2)
    assert endpoint(arm, found).values["gqa"] == pytest.approx(0.5)  # (0.5 - 0.3) / (0.7 - 0.3)
    other = tuned(make, "miniature", "multitask/plain", seed=2, own=0.5)
    scored(other, {"own": 0.5}, manifest="other")  # asked about other data
    found = results([], runs)
    assert endpoint(next(run for run in found if "multitask/plain" in run.experiment), found).value is None


def test_prompts_that_are_training_templates_stand_apart(make: Made, runs: Path) -> None:
    folder = tuned(make, "miniature", **RULER)
    scored(folder, RULER | {"own": 0.9}, ["vsr"], wording="Is this true? {statement}")
    (sheet,) = normalised.sheets(results([], runs))
    assert sheet.title.endswith("miniature, vicuna7b, seed 1")
    lines = {line[0]: list(line[1:]) for line in sheet.lines}
    assert lines["gqa*"] == ["0.600", "0.200", "0.300", "0.100", "0.900", "0.500"] and "vsr" in lines
    assert lines["mean, *"][-1] == "0.500" and lines["mean, others"][-1] == "1.000"
    assert lines["endpoint"][-1] == "0.538"
    (folder / "eval" / "vsr" / "paper-told" / "scores.json").unlink()
    (sheet,) = normalised.sheets(results([], runs))
    assert sheet.lines[-1][-1] == "" and "all controls of vsr" in sheet.notes[0]


def test_the_declaration_is_what_was_agreed() -> None:
    declared = load()
    assert declared.seeds == list(range(100, 108)) and declared.alpha == 0.05
    assert [len(each.seeds) for each in declared.backbones.values()] == [7, 4]
    assert [each.name for each in declared.hypotheses] == ["H1", "H2", "H3", "H4", "held in", "balancing"]
    assert declared.hypotheses[1].parts[0].at_least == 10 and len(PAPER.held_out) == 13
    assert {seed % 100 for seed in declared.worlds} == set(range(8)) and declared.worlds[100] == 100


@pytest.fixture
def study(make: Made, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Declaration:
    """Two arms over the eight declared seeds, on worlds and a backbone as declared."""
    declared = load()
    raw = {seed: tmp_path / "raw" / str(seed) for seed in declared.seeds}
    for seed in declared.seeds:
        write_json(raw[seed] / "miniature.json", {"world": 4, "seed": seed, "sizes": {}})
        for number, (experiment, lead) in enumerate([(("miniature",), 0.3), (("miniature", "control/captions"), 0.1)]):
            folder = make(
                *experiment, seed=seed, config={"model": {"random_init": True}, "paths": {"raw": str(raw[seed])}}
            )
            own = 0.3 + lead + 0.001 * (seed * (3 + number) % 7)
            scored(folder, RULER | {"own": own} if number == 0 else {"own": own})
            saved = folder / "checkpoints" / "step-00060000" / "state.json"
            write_json(saved, {**read_json(saved), "base": "ba5e"})
    found = results([], runs)
    frozen = {"instruct": settings_hash(found[0].config), "captions": settings_hash(found[-1].config)}
    world = declaration.world_of(found[0])
    assert world is not None
    backbones = {name: replace(each, base="ba5e") for name, each in declared.backbones.items()}
    declared = replace(declared, frozen=frozen | {"world": world[1]}, backbones=backbones)
    monkeypatch.setattr(hypotheses, "load", lambda: declared)
    return declared


def verdicts(runs: Path) -> dict[str, str]:
    sheet = hypotheses.sheets(results([], runs), draws=50)[0]
    return {line[0]: line[-1] for line in sheet.lines if line[0]}


def test_a_hypothesis_is_confirmed_absent_or_not_run_yet(study: Declaration, runs: Path) -> None:
    said = verdicts(runs)
    assert said["H1"] == "confirmed" and said["H2"] == "confirmed"
    assert said["H3"] == "not run yet (0 of 8 seeds, 0 of 3 seeds)" and said["H4"].startswith("not run yet (0 of 8")
    assert said["balancing"] == "not run yet (0 of 8 seeds)"
    for seed in study.seeds:  # captions are as good, a floor is as high on four sets
        scored(runs / f"miniature+control-captions-s{seed}", {"own": 0.6 + 0.001 * (seed * 3 % 7)})
        scored(runs / f"miniature-s{seed}", {"none": 0.61}, PAPER.held_out[:4])
    said = verdicts(runs)
    assert said["H1"] == "absent" and said["H2"] == "absent"


def test_nothing_is_compared_before_every_seed_is_there(study: Declaration, runs: Path) -> None:
    (runs / "miniature+control-captions-s103" / "finished.json").unlink()
    sheet = hypotheses.sheets(results([], runs), draws=50)[0]
    assert sheet.lines[0][-1] == "not run yet (7 of 8 seeds)" and sheet.lines[1][2:6] == ["7 of 8", "", "", ""]


def test_a_loss_is_the_better_the_less_it_is(study: Declaration, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(How.lead, "instruct", "captions", of=Measure.loss)
    declared = replace(study, hypotheses=[Hypothesis("held in", "less loss", [part])])
    monkeypatch.setattr(hypotheses, "load", lambda: declared)
    assert verdicts(runs) == {"held in": "not run yet (0 of 8 seeds)"}
    for seed in study.seeds:
        for name, last in {"miniature": 0.9, "miniature+control-captions": 1.0 + 0.001 * (seed * 3 % 7)}.items():
            losses = [5.0] * 6 + [last, last]
            lines = ["step,train/loss", "0,", *(f"{step},{loss}" for step, loss in enumerate(losses, 1))]
            (runs / f"{name}-s{seed}" / "metrics.csv").write_text("\n".join(lines) + "\n")
    sheet = hypotheses.sheets(results([], runs), draws=50)[0]
    assert sheet.lines[0][-1] == "confirmed"
    assert sheet.lines[1][1:4] == ["loss: captions less instruct", "8 of 8", "+0.103"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("steps", 9, "its settings are not the frozen ones"),
        ("paths.raw", "elsewhere", "the raw files of its world are not at hand"),
        ("seed", 104, "its world is number 100"),
    ],
)
def test_a_run_that_was_not_declared_confirms_nothing(
    study: Declaration, runs: Path, key: str, value: Any, said: str
) -> None:
    run = results(["miniature-s100"], runs)[0]
    assert misfits(study, "instruct", run) == []
    config = {**run.config, "paths": {**run.config["paths"]}}
    if key == "paths.raw":
        config["paths"]["raw"] = value
    else:
        config[key] = value
    assert said in misfits(study, "instruct", replace(run, config=config))[0]
    assert confirming(study, [replace(run, config=config)])["instruct"] == {}


def test_other_weights_or_no_frozen_settings_confirm_nothing(study: Declaration, runs: Path) -> None:
    run = results(["miniature-s100"], runs)[0]
    assert misfits(replace(study, frozen={}), "instruct", run) == ["the settings are not frozen"]
    write_json(run.folder / "checkpoints" / "step-00060000" / "state.json", {"base": "0ther"})
    assert misfits(study, "instruct", run) == ["its backbone is 0ther"]


def test_where_weights_lie_is_no_setting(make: Made, runs: Path) -> None:
    made = [make("miniature", seed=seed, config={"model": {"init": f"{seed}.safetensors"}}) for seed in (1, 2)]
    one, other = [results([folder.name], runs)[0].config for folder in made]
    assert settings_hash(one) == settings_hash(other) != settings_hash({**one, "batch_size": 1})


def test_the_report_prints_the_declaration_with_runs_of_the_world_alone(make: Made, runs: Path) -> None:
    make("vicuna7b")
    assert embedded(results([], runs), 50) == []
    tuned(make, "miniature", **RULER)
    titles = [sheet.title for sheet in embedded(results([], runs), 50)]
    assert titles[-1] == "Declared hypotheses (miniature_hypotheses.yaml)"
    assert [title.partition(":")[0] for title in titles[1:-1]] == [normalised.TITLE]
    assert (ROOT / "experiments" / "miniature_hypotheses.yaml").is_file()
    lines = hypotheses.verdicts(results([], runs), 50)
    assert len(lines) == 6 and lines[0].startswith("H1, instruction tuning beats") and lines[0].endswith("8 seeds)")
