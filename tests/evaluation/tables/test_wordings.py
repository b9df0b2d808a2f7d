"""Scores of one run in several wordings: those it was trained with stand apart from all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructblip.data.templates import templates
from instructblip.evaluation.tables.results import results
from instructblip.evaluation.tables.wordings import sheets, trained_with
from instructblip.files import write_json
from instructblip.multitask import OCR

from .conftest import FACTS, Made

VQA = {template.id: template.text for template in templates("vqa")}
OWN = "Say in one word: {question}"
TRAINED = {"mixture": {"name": "m", "recipes": ["vqav2"]}}


def scored(folder: Path, profile: str, wording: str, value: float, **more: object) -> None:
    facts = {"recipe": "gqa", "split": "testdev", "metric": "gqa_accuracy", "n": 9, "wording": wording, "value": value}
    place = folder / "eval" / "gqa" / "-".join([profile, *map(str, more.values())])
    write_json(place / "scores.json", {**FACTS, **facts, "profile": profile, **more})


def test_wordings_of_training_are_never_mixed_with_others(runs: Path, make: Made) -> None:
    folder = make("vicuna7b", config=TRAINED)
    first, second, third = list(VQA)[:3]
    for profile, wording, value in [
        (first, VQA[first], 0.5), (second, VQA[second], 0.7), (third, OCR + VQA[third], 0.6), ("paper", OWN, 0.1),
        ("lavis", "Q: {question}", 0.3),
    ]:  # fmt: skip
        scored(folder, profile, wording, value)
    scored(folder, first, VQA[first], 0.9, images="shuffled")
    scored(folder, first, VQA[first], 0.4, limit=5)
    (sheet,) = sheets(results([], runs))
    assert [line[3:8] for line in sheet.lines] == [
        ["3 trained with", "0.6000", f"0.7000 {second}: {VQA[second]}", f"0.5000 {first}: {VQA[first]}",
         "0.1000 (not trained with)"],
        ["2 not trained with", "0.2000", "0.3000 lavis: Q: {question}", f"0.1000 paper: {OWN}", "0.1000 (not trained with)"],
    ]  # fmt: skip
    assert "never averaged" in sheet.notes[0]


@pytest.mark.parametrize(
    ("config", "trained"),
    [({}, True), ({"wording": {"style": "plain"}}, False), ({"wording": {"keep": {"vqa": [list(VQA)[2]]}}}, False)],
)
def test_what_a_run_was_trained_with_is_as_its_config_says(
    runs: Path, make: Made, config: dict[str, object], trained: bool
) -> None:
    make("vicuna7b", config=TRAINED | config)
    (result,) = results([], runs)
    assert (VQA[list(VQA)[1]] in (trained_with(result) or ())) == trained


def test_weights_a_run_began_from_have_read_all_templates(runs: Path, make: Made) -> None:
    seen = {"recipe": "vqav2", "split": "train", "manifest": "1", "rows": 9, "drawn": 9}
    config = {"mixture": {"name": "okvqa", "recipes": ["coco_caption"]}}
    make("vicuna7b", "finetune/okvqa", config=config, seen=(seen,))
    (result,) = results([], runs)
    assert set(VQA.values()) <= (trained_with(result) or set())


def test_an_empty_world_says_what_it_needs_and_an_embedded_one_stands_apart(runs: Path, make: Made) -> None:
    (sheet,) = sheets(results([], runs))
    assert sheet.lines == [] and "prompts=all" in sheet.notes[0]
    folder = make("vicuna7b", config=TRAINED | {"model": {"random_init": True}})
    for number, (name, wording) in enumerate(VQA.items()):
        scored(folder, name, wording, number / 20)
    real, embedded = sheets(results([], runs))
    assert real.lines == [] and "synthetic world" in embedded.title and embedded.lines[0][7] == ""
