"""GQA and ScienceQA: true of the scenes by an evaluation of their own, balanced, and nothing told by chance."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from instructblip.miniature.reasoning import DOINGS
from instructblip.miniature.scenes import COLOURS, SHAPES, SIZES, Object, Role, Scene
from instructblip.miniature.world import World

Load = Callable[[str], Any]
HOP = re.compile(r"What (color|shape) is the thing (left of|right of|above|below) the (\w+) (\w+)\?")


def beyond(item: Object, relation: str, other: Object) -> bool:
    (row, column), (other_row, other_column) = divmod(item.cell, 3), divmod(other.cell, 3)
    return {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }[relation]


@pytest.mark.parametrize("split", ["train", "testdev"])
def test_gqa_asks_for_the_one_thing_in_the_relation(load: Load, written: Path, world: World, split: str) -> None:
    scenes = {picture.key: picture.scene for picture in world.pictures(f"gqa_{split}")}
    questions = load(f"gqa/questions1.2/{split}_balanced_questions.json")
    assert len(questions) == world.sizes[f"gqa_{split}"]
    for id, row in questions.items():
        match = HOP.fullmatch(row["question"])
        assert match and row["equivalent"] == [id]
        attribute, relation, colour, shape = match.groups()
        (other,) = [item for item in scenes[row["imageId"]].objects if (item.colour, item.shape) == (colour, shape)]
        (found,) = [item for item in scenes[row["imageId"]].objects if beyond(item, relation, other)]
        assert row["answer"] == (found.colour if attribute == "color" else found.shape)
        assert (written / f"gqa/images/{row['imageId']}.jpg").is_file()
        assert [step["dependencies"] for step in row["semantic"]] == [[], [0], [1], [2]]


def test_gqa_answers_are_balanced(load: Load) -> None:
    rows = load("gqa/questions1.2/testdev_balanced_questions.json").values()
    for attribute, values in (("color", 6), ("shape", 4)):
        answers = Counter(row["answer"] for row in rows if f"What {attribute}" in row["question"])
        assert len(answers) == values
        assert max(answers.values()) <= 1.3 * min(answers.values())


def rule_answer(row: dict[str, Any], scene: Scene | None) -> str:
    """Which rule holds and what the thing does, from the rules and either the picture or the sentence that tells it."""
    text = f"{row['hint']} {row['question']}"
    rules = dict(re.findall(r"\b(?:a|what is) (\w+) (sings|dances|sleeps|jumps|swims|flies)\b", text))
    subject = re.search(r"hat does the (.+) do\?", row["question"])
    assert subject and len(rules) == len(row["choices"])
    if told := re.search(r"There is an? (\w+) (\w+) (\w+)\.", row["hint"]):
        things = [set(told.groups())]
    else:
        assert scene
        things = [{item.size, item.colour, item.shape} for item in scene.objects]
    named = set(subject[1].split()) - {"thing"}
    (thing,) = [thing for thing in things if named <= thing]
    (value,) = thing & set(rules)
    assert value not in named, "the question must not say what the rule is about"
    return f"{value} {rules[value]}"


def test_scienceqa_applies_the_rule_of_its_context(load: Load, written: Path, world: World) -> None:
    pictures = [picture for split in ("train", "val", "test") for picture in world.pictures(f"scienceqa_{split}")]
    scenes = {str(picture.id): picture.scene for picture in pictures}
    problems = load("scienceqa/problems.json")
    for pid, row in problems.items():
        assert row["choices"][row["answer"]] == rule_answer(row, scenes[pid] if row["image"] else None)
        assert len(set(row["choices"])) == len(row["choices"])
        file = written / f"scienceqa/images/{row['split']}/{pid}/image.png"
        assert file.is_file() == (row["image"] == "image.png") == (row["image"] is not None)
        if row["image"]:
            assert row["hint"] or " do?" in row["question"]
            with Image.open(file) as image:
                assert image.size == (48, 48)


def test_scienceqa_splits_list_every_problem_once(load: Load) -> None:
    problems, listed = load("scienceqa/problems.json"), load("scienceqa/pid_splits.json")
    assert set(listed) == {"train", "val", "test", "trainval", "minitrain", "minival", "minitest"}
    assert sorted(listed["train"] + listed["val"] + listed["test"]) == sorted(problems)
    assert listed["trainval"] == listed["train"] + listed["val"]
    assert all(problems[pid]["split"] == split for split in ("train", "val", "test") for pid in listed[split])
    shown = [problems[pid] for pid in listed["test"] if problems[pid]["image"]]
    assert len(shown) == 500
    assert 20 < sum(not row["hint"] for row in shown) < 100
    assert any(not problems[pid]["image"] for pid in listed["test"])


def test_scienceqa_answers_stand_anywhere_and_every_doing_is_as_often_right(load: Load) -> None:
    rows = [row for row in load("scienceqa/problems.json").values() if row["split"] == "test"]
    assert Counter(len(row["choices"]) for row in rows).keys() == {2, 3, 4, 5}
    for number in (2, 3):
        places = Counter(row["answer"] for row in rows if len(row["choices"]) == number)
        assert max(places.values()) < 1.5 * min(places.values())
    right = Counter(word for row in rows for word in row["choices"][row["answer"]].split())
    offered = Counter(word for row in rows for choice in row["choices"] for word in choice.split())
    shares = {word: right[word] / number for word, number in offered.items()}
    for words, about in ((COLOURS, 0.3), (SHAPES, 0.35), (SIZES, 0.5), (DOINGS.values(), 0.38)):
        assert all(abs(shares[word] - about) < 0.1 for word in words), shares


def test_roles(world: World) -> None:
    for name, role in {
        "gqa_testdev": Role.evaluation,
        "scienceqa_val": Role.selection,
        "visdial_val": Role.evaluation,
    }.items():
        assert {picture.scene.role for picture in world.pictures(name)} == {role}
