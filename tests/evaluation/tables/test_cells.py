"""Each verdict, on runs whose scores were chosen to bring it about."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from instructblip.evaluation.tables import ablations, rendering, synthetic
from instructblip.evaluation.tables.cell import Cell, Verdict
from instructblip.evaluation.tables.cells import fill
from instructblip.evaluation.tables.published import load
from instructblip.evaluation.tables.results import results
from tests.conftest import composed

from .conftest import PAPER, Made

GQA: dict[str, Any] = {"value": 0.495, "n": 12578, "metric": "gqa_accuracy", "interval": [0.485, 0.505]}
SEEN = {"recipe": "coco_caption", "split": "train", "manifest": "1", "rows": 82783, "drawn": 700}


def cell(runs: Path, column: str = "GQA", row: str = "InstructBLIP Vicuna-7B", table: str = "table1") -> Cell:
    cells = fill(load(table), results([], runs), PAPER, draws=50)
    (found,) = [each for each in cells if (each.row, each.column) == (row, column)]
    return found


def test_a_published_value_in_the_interval(runs: Path, make: Made) -> None:
    folder = make("vicuna7b", gqa=GQA, seen=(SEEN,))
    found = cell(runs)
    assert (found.verdict, found.published, found.ours) == (Verdict.inside, 49.2, pytest.approx(49.5))
    assert found.difference == pytest.approx(0.3) and (found.low, found.high) == pytest.approx((48.5, 50.5))
    assert (found.source, found.n, found.runs) == ("items", 12578, (folder / "eval/gqa/paper-0",))
    assert found.clean is None and any("no clean subset" in note for note in found.notes)


@pytest.mark.parametrize(
    ("column", "score", "verdict", "why"),
    [
        ("GQA", {"value": 0.499, "interval": [0.495, 0.503]}, Verdict.near, "m = 1"),
        ("GQA", {"value": 0.40, "interval": [0.39, 0.41]}, Verdict.differs, ""),
        ("GQA", {"value": 0.40, "interval": None}, Verdict.no_interval, "not at hand"),
        ("GQA", {"n": 500, "limit": 500}, Verdict.part, "500 of 12,578"),
        ("GQA", {"n": 12577}, Verdict.part, "12,577 of 12,578"),
        ("VSR", {"recipe": "vsr", "metric": "multiple_choice", "value": 0.6, "n": 1222, "interval": [0.58, 0.62]},
         Verdict.unknown, "does not say"),
        ("VizWiz", {"recipe": "vizwiz", "metric": "vizwiz_accuracy", "value": 0.345, "n": 4319}, Verdict.other_split,
         "ours is val, the paper's test-dev"),
    ],
)  # fmt: skip
def test_verdicts(runs: Path, make: Made, column: str, score: dict[str, Any], verdict: Verdict, why: str) -> None:
    facts = GQA | score
    make("vicuna7b", seen=(SEEN,), **{facts.get("recipe", "gqa"): facts})
    found = cell(runs, column)
    assert found.verdict is verdict and why in found.why


@pytest.mark.parametrize(
    "changed", [{"images": "shuffled"}, {"profile": "lavis"}, {"variant": "normalized"}, {"llm_limit": 9}]
)
def test_a_score_of_another_protocol_fills_nothing(runs: Path, make: Made, changed: dict[str, Any]) -> None:
    make("vicuna7b", gqa=GQA | changed)
    found = cell(runs)
    assert (found.verdict, found.ours) == (Verdict.not_run, None)
    assert "python evaluate.py run=vicuna7b-s1 recipe=gqa" in found.why


def test_weights_that_have_seen_the_dataset_are_ineligible(runs: Path, make: Made) -> None:
    make("vicuna7b", gqa=GQA, seen=({**SEEN, "recipe": "gqa"},))
    found = cell(runs)
    assert found.verdict is Verdict.ineligible and "gqa/train (700 samples)" in found.why


def test_weights_whose_checkpoint_is_gone_are_not_taken_on_trust(runs: Path, make: Made) -> None:
    folder = make("vicuna7b", gqa=GQA, seen=(SEEN,))
    (folder / "checkpoints/step-00060000/manifest.json").unlink()
    found = cell(runs)
    assert found.verdict is Verdict.ineligible and "its checkpoint is gone" in found.why


def test_held_in_columns_may_have_seen_their_training_split(runs: Path, make: Made) -> None:
    score = {"value": 0.5, "n": 1145, "interval": [0.45, 0.55]}
    parts: dict[str, Any] = {
        "coco_caption": score | {"metric": "cider", "value": 1.2, "n": 5000, "interval": [1.15, 1.25]},
        "okvqa": score | {"metric": "vqa_accuracy:official_2017", "n": 5046},
        "aokvqa": score | {"metric": "aokvqa_direct_answer"},
        "textcaps": score | {"metric": "cider", "value": 1.0, "n": 3166},
    }
    make("vicuna7b", seen=(SEEN,), **parts)
    found = cell(runs, "held-in (DA)", table="table2")
    assert found.ours == pytest.approx((120 + 50 + 50 + 100) / 4)
    half = (3 * 5**2 + 5**2) ** 0.5 / 4
    assert found.low == pytest.approx(found.ours - half) and found.verdict is Verdict.unknown
    other = cell(runs, "held-in (MC)", table="table2")
    assert other.verdict is Verdict.not_run and "variant=multiple_choice" in other.why
    make("vicuna7b", name="b", seed=2, seen=({**SEEN, "split": "test"},), **parts)
    assert cell(runs, "held-in (DA)", table="table2").verdict is Verdict.ineligible


TESTED: dict[str, Any] = {"selection": {"source": "paper_guess", "recipes": ["okvqa", "aokvqa"], "prompts": "paper"}}


def test_columns_that_chose_the_checkpoint_are_said_to_be_selected_on_test(runs: Path, make: Made) -> None:
    score = {"value": 0.5, "n": 5046, "interval": [0.4, 0.99], "metric": "vqa_accuracy:official_2017"}
    tuned = ("vicuna7b", "finetune/okvqa")
    asked = {"mixture": {"name": "okvqa", "recipes": ["okvqa"]}, "model": {"init": "instructblip", "starts": STARTS}}
    setting = {"purpose": "finetune", "steps": 1400, "batch_size": 64, "group_size": 4, **asked}
    make(*tuned, okvqa=score, config=setting | {"selection": TESTED["selection"] | {"recipes": ["okvqa"]}})
    found = cell(runs, "OKVQA", table="table3")
    assert found.verdict is Verdict.selected and "chosen by its score on okvqa/test" in found.why
    assert rendering.verdict(found).startswith("selected on test: ")


def test_a_selected_column_makes_its_mean_selected_and_others_stay_as_they_are(runs: Path, make: Made) -> None:
    parts: dict[str, Any] = {
        name: {"value": 0.9, "n": 5046, "metric": column.metric, "interval": [0.5, 1.5]}
        for name, column in load("table2").columns.items()
        if name in ("coco_caption", "okvqa", "aokvqa", "textcaps")
    }
    make("vicuna7b", config=TESTED, gqa=GQA, **parts)
    found = cell(runs, "held-in (DA)", table="table2")
    assert found.verdict is Verdict.selected and found.why.startswith("OKVQA: the checkpoint was chosen")
    assert cell(runs).verdict is Verdict.inside
    make("flant5xl", config=TESTED | {"steps": 9}, **parts)
    found = cell(runs, "held-in (DA)", "InstructBLIP FlanT5-XL", "table2")
    assert found.verdict is Verdict.other_recipe and "selected on test" in found.notes


STARTS = {"blip2": ["a.pth", "b.pth"], "instructblip": "c.pth", "instructblip_hf": "d"}


@pytest.mark.parametrize(
    ("init", "seen", "row"),
    [("instructblip_hf", (), "InstructBLIP Vicuna-7B"), ("blip2", (), "BLIP-2 Vicuna-7B"),
     ("runs/x/model.safetensors", (SEEN,), "InstructBLIP Vicuna-7B"),
     ("own.pth", ({**SEEN, "recipe": "okvqa"},), "BLIP-2 Vicuna-7B")],
)  # fmt: skip
def test_a_finetuning_is_of_the_row_it_begins_from(
    runs: Path, make: Made, init: str, seen: tuple[dict[str, Any], ...], row: str
) -> None:
    config = {"mixture": {"name": "okvqa", "recipes": ["okvqa"]}, "model": {"init": init, "starts": STARTS}}
    score = {"value": 0.6, "n": 5046, "metric": "vqa_accuracy:official_2017"}
    make("vicuna7b", "finetune/okvqa", okvqa=score, seen=seen, config=config)
    for title in ("InstructBLIP Vicuna-7B", "BLIP-2 Vicuna-7B"):
        found = cell(runs, "OKVQA", title, "table3")
        assert (found.ours is not None) == (title == row)
        assert title == row or f"init={'blip2' if 'BLIP-2' in title else 'instructblip'}`" in found.why


def test_runs_of_one_recipe_are_its_seeds_and_others_are_left_out(runs: Path, make: Made) -> None:
    make("vicuna7b", seed=1, gqa=GQA)
    make("vicuna7b", seed=2, gqa=GQA | {"value": 0.485})
    make("vicuna7b", name="short", seed=3, gqa=GQA | {"value": 0.1}, config={"steps": 10})
    make("flant5xl", seed=4, gqa=GQA | {"value": 0.2})
    found = cell(runs)
    assert found.ours == pytest.approx(49.0) and found.seeds == {1: pytest.approx(49.5), 2: pytest.approx(48.5)}
    assert found.source == "items+seeds" and any("left out: short" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"config": {"steps": 10}}, "steps 10, not 60000"), ({"finished": False}, "not finished"),
     ({"config": {"model": {"name": "opt"}}}, "model.name opt, not vicuna7b")],
)  # fmt: skip
def test_a_run_unlike_its_experiment_gets_no_verdict(runs: Path, make: Made, changes: dict[str, Any], why: str) -> None:
    make("vicuna7b", gqa=GQA, **changes)
    found = cell(runs)
    assert found.verdict is Verdict.other_recipe and why in found.why


def test_another_mixture_is_named_and_another_partition_not_matched(runs: Path, make: Made) -> None:
    make("vicuna7b", gqa=GQA, config={"mixture": {"name": "paper_558k"}})
    assert "mixture paper_558k" in cell(runs).notes
    make("vicuna13b", gqa=GQA, config={"partition": {"held_in": ["gqa"]}, "model": {"name": "vicuna13b"}})
    assert cell(runs, row="InstructBLIP Vicuna-13B").verdict is Verdict.not_run


def test_an_embedded_world_never_stands_beside_published_values(runs: Path, make: Made, tmp_path: Path) -> None:
    make("vicuna7b", name="tiny", gqa=GQA, config={"model": {"random_init": True}})
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "miniature.json").write_text("{}")
    make("vicuna7b", name="stamped", seed=2, gqa=GQA, config={"paths": {"raw": str(raw)}})
    assert cell(runs).verdict is Verdict.not_run
    sheet = synthetic.sheet(results([], runs))
    assert sheet and "synthetic world" in sheet.title and len(sheet.lines) == 2
    assert "49.2" not in str(sheet) and "0.4950" in str(sheet)


def test_scores_of_an_older_form_are_told_and_not_used(runs: Path, make: Made) -> None:
    folder = make("vicuna7b", gqa=GQA)
    path = folder / "eval/gqa/paper-0/scores.json"
    path.write_text(json.dumps({"recipe": "gqa", "value": 0.5}))
    found = cell(runs)
    assert found.verdict is Verdict.not_run and "predict=false` its scores" not in found.why
    assert "recipe=gqa predict=false`, its scores are of an older form" in found.why


def test_a_released_checkpoint_fills_its_row(runs: Path, make: Made) -> None:
    folder = make("vicuna7b", name="released/blip2_flant5xl", gqa=GQA | {"value": 0.44, "interval": [0.43, 0.45]})
    (folder / "config.yaml").unlink()
    found = cell(runs, row="BLIP-2 FlanT5-XL")
    assert found.verdict is Verdict.inside and "published weights, not trained here" in found.notes


@pytest.mark.parametrize(
    ("experiment", "row", "asked"),
    [("released/vicuna7b", "InstructBLIP Vicuna-7B", "gqa"), ("baseline/blip2_vicuna7b", "BLIP-2 Vicuna-7B", "gqa")],
)
def test_placed_models_fill_their_rows_with_their_declared_lineage(
    runs: Path, make: Made, experiment: str, row: str, asked: str
) -> None:
    folder = make(experiment, name=f"released/{experiment.split('/')[1]}", finished=False, gqa=GQA)
    config = composed("train", f"experiment={experiment}", f"paths.runs={runs}")
    config.experiment = [experiment]
    OmegaConf.save(OmegaConf.structured(config), folder / "config.yaml")
    shutil.rmtree(folder / "checkpoints")
    (result,) = results([], runs)
    seen = {each.recipe for each in result.lineage("") or []}
    assert seen == (set() if "blip2" in experiment else set(PAPER.held_in))
    assert result.name == f"released/{folder.name}" and results([result.name], runs) == [result]
    found = cell(runs, row=row)
    assert found.ours == pytest.approx(49.5) and found.notes[0] == "published weights, not trained here"
    assert found.verdict is (Verdict.differs if "blip2" in experiment else Verdict.inside)


def test_nothing_was_run(runs: Path) -> None:
    cells = fill(load("table1"), results([], runs), PAPER)
    assert len(cells) == 11 * 13 and all(each.ours is None for each in cells)
    assert {each.verdict for each in cells} == {Verdict.published, Verdict.not_run}
    assert all(each.why for each in cells if each.verdict is Verdict.not_run)
    assert "python train.py experiment=vicuna7b" in cell(runs).why
    assert "leaderboard.allenai.org" in cell(runs, "MC test", "InstructBLIP FlanT5-XXL", "table3").why


def test_recipes_are_called_different_over_paired_seeds_alone(runs: Path, make: Made) -> None:
    for seed, (base, changed) in enumerate([(0.50, 0.40), (0.51, 0.41), (0.49, 0.392)]):
        make("vicuna7b", seed=seed, gqa=GQA | {"value": base})
        make(
            "vicuna7b",
            "ablation/no_balancing",
            seed=seed,
            gqa=GQA | {"value": changed},
            config={"mixture": {"weighting": "uniform"}},
        )
    table = load("table2")
    sheet = ablations.sheet(table, fill(table, results([], runs), PAPER))
    assert sheet
    (line,) = [each for each in sheet.lines if each[1] == "GQA" and each[3]]
    assert line[0] == "- w/o data balancing (InstructBLIP Vicuna-7B)" and line[3] == "-9.9"
    assert line[7] == "recipes, 3 paired seeds: different"
    others = [each for each in sheet.lines if each[1] != "GQA"]
    assert others and all(each[3:] == ["", "", "", "", "not run"] for each in others)
