"""The whole line on real photographs: prepare, train, evaluate, score, report, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from instructblip.training.checkpoint import last_checkpoint
from tests.conftest import run_program
from tests.fixtures import real_tree


def program(*arguments: str) -> str:
    done = run_program(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_real_photographs_end_to_end(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path / "raw")
    paths = [f"paths.data={tmp_path}/data", f"paths.runs={tmp_path}/runs"]
    said = program(
        "prepare.py", "recipe=[coco_caption,vqav2,vsr]", f"paths.raw={tmp_path}/raw", f"+paths.media.coco={real}/images/coco",
        "check_counts=false", "max_bad_media=1.0", *paths,
    )  # fmt: skip
    assert "vqav2/val: 19 of 214,354 official rows, written (left out: 20 picture missing or broken)" in said

    small = [
        "steps=6",
        "batch_size=8",
        "group_size=4",
        "trainer.log_every=2",
        "trainer.checkpoint_every=3",
        "name=real",
    ]
    crops = ["transforms.crop_scale=[0.5,1.0]", "transforms.flip=0.5"]
    program("train.py", "experiment=miniature/scratch", *small, *crops, *paths)
    run = tmp_path / "runs/real"
    finished = json.loads((run / "finished.json").read_text())
    assert finished["steps"] == 6 and finished["fixed_batch"]["after"] < finished["fixed_batch"]["before"]
    checkpoint = last_checkpoint(run)
    assert checkpoint and {seen.recipe for seen in checkpoint.lineage} == {"coco_caption", "vqav2"}
    assert "is finished" in program("train.py", "experiment=miniature/scratch", *small, *crops, *paths)

    program("evaluate.py", "run=real", "recipe=[vqav2,vsr]", paths[1])
    scores = {path.parent.parent.name: json.loads(path.read_text()) for path in run.glob("eval/*/*/scores.json")}
    assert (scores["vqav2"]["n"], scores["vsr"]["n"]) == (19, 4)
    assert all(0 <= facts["value"] <= 1 for facts in scores.values())
    predictions = [json.loads(line) for line in next(run.glob("eval/vsr/*/predictions.jsonl")).read_text().splitlines()]
    assert any(
        "is this statement true or false?" in line.get("prompt", "") and len(line["scores"]) == 2
        for line in predictions
    )

    before = {path: path.read_bytes() for path in run.glob("eval/*/*/*")}
    again = program("evaluate.py", "run=real", "recipe=[vqav2,vsr]", "predict=false", paths[1])
    assert {path: path.read_bytes() for path in run.glob("eval/*/*/*")} == before and "vsr" in again
    report = program("report.py", paths[1])
    assert "real" in report and "finished" in report and "vqa_accuracy" in report
