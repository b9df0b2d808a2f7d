from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.choices import Images
from instructblip.evaluation.runs import scores_table
from instructblip.files import sha256

from .conftest import World, question, statement


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")


def test_scores_and_their_origin(world: World) -> None:
    path = world.predict("vqav2")
    scores = world.score("vqav2")
    assert (scores.value, scores.n) == (pytest.approx(5 / 7), 7)
    assert scores.metric == "vqa_accuracy:evalai"
    assert scores.checkpoint == world.checkpoint
    assert scores.manifest == "table of vqav2"
    assert scores.predictions == sha256(path)
    assert path.parent.name == f"paper-{scores.protocol}"
    assert json.loads(path.with_name("scores.json").read_text(encoding="utf-8")) == asdict(scores)


def test_ranking_scores(world: World) -> None:
    world.predict("vsr")  # it always says true, and five of eleven are
    assert world.score("vsr").value == pytest.approx(5 / 11)


def test_scoring_again_gives_the_same_file(world: World) -> None:
    path = world.predict("vsr").with_name("scores.json")
    world.score("vsr")
    before = path.read_bytes()
    world.score("vsr")
    assert path.read_bytes() == before


def test_a_part_and_a_control_are_scored_as_such(world: World) -> None:
    world.predict("vqav2", limit=2, images=Images.shuffled)
    scores = world.score("vqav2", limit=2, images=Images.shuffled)
    assert (scores.n, scores.limit, scores.images, scores.value) == (2, 2, "shuffled", 0.0)


REFUSED: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "missing": (lambda lines: lines[:-2], "2 missing"),
    "half a line": (lambda lines: [*lines[:-1], lines[-1][:9]], "1 missing"),
    "twice": (lambda lines: [*lines, lines[-1]], "1 predicted twice"),
    "unknown": (lambda lines: [*lines, lines[-1].replace("vsr/test/", "vsr/test/x")], "1 not in the table"),
    "exchanged": (
        lambda lines: [*lines[:-1], lines[1]],
        r"1 missing \(first vsr/test/00\), 1 predicted twice \(first vsr/test/\d+\), where 11 Samples",
    ),
    "nan": (
        lambda lines: [*lines[:-1], lines[-1].replace("[-", "[NaN, -")],
        "vsr/test/00 cannot be scored.*NaN",
    ),
    "text": (lambda lines: [*lines[:-1], lines[-1].replace("scores", "output")], "needs scores"),
    "prompt": (lambda lines: [*lines[:-1], lines[-1].replace("near", "far")], "1 of 11 prompts"),
    "protocol": (
        lambda lines: [line.replace('"protocol": "', '"protocol": "0') for line in lines],
        "another protocol",
    ),
    "recipe": (lambda lines: [line.replace('"vsr"', '"gqa"') for line in lines], "recipe 'gqa', not 'vsr'"),
    "control": (
        lambda lines: [line.replace('"own"', '"shuffled"') for line in lines],
        "images 'shuffled', not 'own'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_refused_and_overwrites_nothing(case: str, world: World) -> None:
    change, message = REFUSED[case]
    path = world.predict("vsr")
    world.score("vsr")
    before = path.with_name("scores.json").read_bytes()
    edit(path, change)
    with pytest.raises(ValueError, match=message):
        world.score("vsr")
    assert path.with_name("scores.json").read_bytes() == before


def test_an_unlabelled_split_is_refused(world: World) -> None:
    world.predict("vsr")
    world.prepare("vsr", [statement(number, gold=None) for number in range(11)])
    with pytest.raises(ValueError, match="split 'test' is unlabelled, and no server form is known"):
        world.score("vsr")
    world.prepare("vsr", [statement(number, gold=None if number == 10 else 1) for number in range(11)])
    with pytest.raises(
        ValueError, match=r"1 of 11 Samples have neither answers nor a gold candidate .first vsr/test/10"
    ):
        world.score("vsr")


def test_questions_that_changed_are_refused_and_answers_that_were_mended_are_not(world: World) -> None:
    world.predict("vqav2")
    world.prepare("vqav2", [question(number, "no idea") for number in range(7)])
    assert world.score("vqav2").value == 0.0
    world.prepare("vqav2", [question(number, "no idea") for number in range(8)])
    with pytest.raises(ValueError, match=r"1 missing \(first vqav2/val/07\)"):
        world.score("vqav2")


def test_prompts_that_were_cut_are_counted(world: World) -> None:
    """The Q-Former reads 128 tokens, here letters, two of them special; the language model all unless told otherwise."""
    lines = world.predict("vsr").read_text(encoding="utf-8").splitlines()
    long = [len(json.loads(line)["prompt"]) > 126 for line in lines]
    assert 0 < sum(long) < len(long) and world.score("vsr").truncated == sum(long)
    world.predict("vsr", eval_llm_limit=20)
    scores = world.score("vsr", eval_llm_limit=20)
    assert (scores.truncated, scores.llm_limit) == (scores.n, 20)
    assert world.path("vsr", eval_llm_limit=20).parent.name.endswith("-llm20")


def test_parts_of_a_split_stand_beside_its_score(world: World) -> None:
    kinds = ["number", "other"]
    samples = [
        replace(question(number, f"{number % 5 * 40:03d}"), meta={"answer_type": kinds[number % 2]})
        for number in range(4)
    ]
    world.prepare("vqav2", [*samples[:3], replace(samples[3], answers=question(3, "no idea").answers)])
    path = world.predict("vqav2")
    scores = world.score("vqav2")
    assert scores.extra == {"answer_type:number": 1.0, "answer_type:other": 0.5}
    assert json.loads(path.with_name("scores.json").read_text(encoding="utf-8"))["extra"] == scores.extra


def test_an_undefined_score_is_null_and_printed_as_undefined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes.load("vsr").evaluation, "metric", "auroc")
    world.prepare("vsr", [statement(number, gold=1) for number in range(11)])  # one class
    path = world.predict("vsr")
    scores = world.score("vsr")
    assert scores.value is None
    text = path.with_name("scores.json").read_text(encoding="utf-8")
    assert json.loads(text)["value"] is None and "NaN" not in text
    (cells,) = [
        list(column.cells) for column in scores_table([("run", asdict(scores))]).columns if column.header == "value"
    ]
    assert cells == ["undefined"]
