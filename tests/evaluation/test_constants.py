"""The majority floor on a run that was tuned on a handful of answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from omegaconf import OmegaConf

from instructblip import recipes
from instructblip.choices import Images
from instructblip.data.sample import Answer, Candidates, Form
from instructblip.data.tables import Table, table_path, write_table
from instructblip.evaluation.constants import Tuned, constant, tuned
from instructblip.evaluation.predictions import read
from instructblip.evaluation.runs import CONSTANT, note_of
from instructblip.evaluation.subject import Subject
from tests.conftest import composed

from .conftest import World, question, statement

KNOWN = Tuned({"yes/no": Counter(no=5, yes=4), "other": Counter(red=9, left=3), "caption": Counter({"a star": 2})})


def said(world: World, recipe: str, known: Tuned = KNOWN, **changes: Any) -> list[Any]:
    """What the constant answers, by number of the question."""
    config = world.config(constant=True, images=Images.none, **changes)
    (trial,) = world.trials(recipe, **changes)
    constant(trial, config, world.run, known)
    _, predictions = read(trial.path(world.run, config))
    return [each.output if each.scores is None else each.scores for each in sorted(predictions, key=lambda p: p.uid)]


def test_each_type_gets_the_tuned_answer_that_scores_best(world: World) -> None:
    truths = ["yes", "yes", "no", "left", "left", "red", "7"]
    world.prepare("vqav2", [question(number, truth) for number, truth in enumerate(truths)])
    assert said(world, "vqav2") == ["yes", "yes", "yes", "left", "left", "left", "7"]  # 7 is the split's own
    scores = world.score("vqav2", constant=True, images=Images.none)
    assert scores.value == pytest.approx(5 / 7) and scores.checkpoint == CONSTANT and scores.images == "none"
    assert note_of({"images": "none", "limit": 3, "checkpoint": CONSTANT}) == "best constant answer, first 3 only"
    path = world.path("vqav2", constant=True)
    assert path.parent.name.endswith("-constant") and path != world.path("vqav2", images=Images.none)


def test_a_tuned_answer_that_fits_nothing_gives_way_to_the_split_itself(world: World) -> None:
    truths = ["blue", "green", "green"]
    world.prepare("vqav2", [question(number, truth) for number, truth in enumerate(truths)])
    assert said(world, "vqav2") == ["green"] * 3
    assert said(world, "vqav2", Tuned()) == ["green"] * 3  # tuned on captions alone


def test_captions_are_all_the_most_frequent_tuned_one(world: World) -> None:
    picture = replace(question(0, "x"), uid="nocaps/val/0", dataset="nocaps", form=Form.caption, slots={})
    world.prepare("nocaps", [replace(picture, uid=f"nocaps/val/{number}") for number in range(2)])
    assert said(world, "nocaps") == ["a star"] * 2


def test_classes_are_answered_by_the_more_frequent_one(world: World) -> None:
    world.prepare("vsr", [statement(number, gold=int(number > 0)) for number in range(3)])
    assert said(world, "vsr") == [[0.0, 1.0]] * 3
    assert said(world, "vsr", variant="generate") == ["yes"] * 3


def options(number: int, gold: int, *texts: str) -> Any:
    given = replace(question(number, "x"), uid=f"iconqa/test/{number:02d}", dataset="iconqa", split="test", answers=())
    return replace(given, form=Form.multiple_choice, candidates=Candidates(items=texts), gold=gold)


def test_options_are_ranked_by_place_or_by_how_often_they_are_said(world: World) -> None:
    by_place = [options(number, 1, "a", f"b{number}") for number in range(4)]
    world.prepare("iconqa", by_place)
    assert said(world, "iconqa") == [[0.0, 1.0]] * 4
    by_tuning = [
        options(number, number % 2, *(("red", "left") if number % 2 == 0 else ("left", "red"))) for number in range(4)
    ]
    world.prepare("iconqa", by_tuning)
    assert said(world, "iconqa")[:2] == [[9.0, 3.0], [3.0, 9.0]]
    by_split = [options(n, n % 2, *(("up", "down") if n % 2 == 0 else ("down", "up"))) for n in range(20)]
    world.prepare("iconqa", by_split)
    assert said(world, "iconqa")[:2] == [[20.0, 0.0], [0.0, 20.0]]
    open_texts = [options(n, n % 2, *((f"t{n}", "z") if n % 2 == 0 else ("z", f"t{n}"))) for n in range(20)]
    world.prepare("iconqa", open_texts)  # their own frequencies would give the truth away
    assert sum(scores[n % 2] > scores[1 - n % 2] for n, scores in enumerate(said(world, "iconqa"))) == 10


def test_tuned_answers_are_those_of_the_run_without_what_it_asked_or_told(world: World) -> None:
    rows = [replace(question(n, "x"), uid=f"vqav2/train/{n}", split="train") for n in range(2)]
    given = (Answer("Yes", 7), Answer("2", 3)), (Answer("Yes", 1), Answer("red", 9))
    rows = [replace(row, answers=answers) for row, answers in zip(rows, given, strict=True)]
    write_table(table_path(world.data, "vqav2", "train"), rows)
    assert Table(table_path(world.data, "vqav2", "train")).answers() == {"Yes": 8, "2": 3, "red": 9}
    picture = replace(rows[0], uid="coco_caption/train/0", dataset="coco_caption", form=Form.caption, slots={})
    write_table(table_path(world.data, "coco_caption", "train"), [replace(picture, answers=(Answer("A star.", 1),))])
    world.run.mkdir(parents=True)
    mixture = "mixture.recipes=[coco_caption,vqav2,vqav2_vqg]"
    OmegaConf.save(
        OmegaConf.structured(composed("train", "experiment=miniature/scratch", mixture)), world.run / "config.yaml"
    )
    asked = Subject("one", world.run, str(world.data), None)
    found = tuned(asked, world.config(constant=True))
    kinds = {"yes/no": {"Yes": 8}, "number": {"2": 3}, "other": {"red": 9}, "caption": {"a star": 1}}
    assert found.answers == kinds and recipes.load("vqav2_vqg").view_of == "vqav2"
    with pytest.raises(ValueError, match="leave images=shuffled out"):
        tuned(asked, world.config(constant=True, images=Images.shuffled))
    with pytest.raises(ValueError, match="of a checkpoint that is not known"):
        tuned(replace(asked, checkpoint=world.run), world.config(constant=True))
