"""A user's own data, from a YAML and JSON lines to a trained and evaluated model, as the README has it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from instructblip import recipes
from instructblip.data.readers.base import Drop
from instructblip.data.readers.own import media_key
from instructblip.data.readers.registry import read
from instructblip.data.sample import Sample
from tests.conftest import ROOT

FACTS = "name: mine\nsplits: {train: {reader: own, files: [rows.jsonl]}}\n"


def rows(folder: Path, *given: Any, facts: str = FACTS) -> list[Sample | Drop]:
    (folder / "raw/mine").mkdir(parents=True)
    (folder / "mine.yaml").write_text(facts)
    (folder / "raw/mine/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    return list(read(recipes.load(str(folder / "mine.yaml")), "train", folder / "raw"))


def one(folder: Path, **row: Any) -> Sample:
    (found,) = rows(folder, {"image": "a.jpg", "instruction": "Say it.", **row})
    assert isinstance(found, Sample)
    return found


def test_a_row_becomes_a_sample(tmp_path: Path) -> None:
    sample = one(tmp_path, image="./x/a b.jpg", response=["yes", "no", "yes"], id="first", weather="rain")
    assert sample.uid == "mine/train/first" and sample.slots == {"instruction": "Say it."}
    assert [(answer.text, answer.votes) for answer in sample.answers] == [("yes", 2), ("no", 1)]
    assert sample.media[0].relpath == "x/a b.jpg" and sample.meta == {"weather": "rain"}


@pytest.mark.parametrize(("answer", "gold"), [("no", 1), (0, 0)])
def test_candidates_and_the_right_one(tmp_path: Path, answer: Any, gold: int) -> None:
    sample = one(tmp_path, candidates=["yes", "no"], answer=answer)
    assert sample.gold == gold and sample.answers[0].text == ("yes", "no")[gold], "so that it can be trained on as well"


def test_slots_of_the_papers_templates_may_stand_in_rows(tmp_path: Path) -> None:
    (sample,) = rows(
        tmp_path,
        {"image": "a.jpg", "question": "What?", "ocr": ["x", 1], "history": [["a", "b"]], "response": "c"},
        facts=FACTS + "form: vqa\n",
    )
    assert isinstance(sample, Sample)
    assert sample.slots == {"question": "What?", "ocr": ("x", "1"), "history": (("a", "b"),)}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": None}, "no `image`"),
        ({"instruction": ""}, "asks nothing"),
        ({"instruction": 3}, "not a text"),
        ({"response": [""]}, "not a text or a list"),
        ({"following": [["What else?", "milk"]]}, "`following` without `context`"),
        ({"answer": "yes"}, "no `candidates`"),
        ({"candidates": ["yes"]}, "list of two texts"),
        ({"candidates": ["yes", "no"], "answer": "maybe"}, "neither one of the candidates"),
        ({"candidates": ["yes", "no"], "answer": 2}, "nor a number below 2"),
        ({"candidates": ["yes", "no"], "answer": True}, "neither one"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    good = {"image": "a.jpg", "instruction": "x", "response": "y"}
    with pytest.raises(ValueError, match=rf"rows\.jsonl row 2: .*{said}"):
        rows(tmp_path, good, good | row)


def test_a_row_without_a_response_is_counted(tmp_path: Path) -> None:
    (drop,) = rows(tmp_path, {"image": "a.jpg", "instruction": "x"})
    assert drop == Drop("mine/train/0", "no response and no answer")


def test_media_keys_are_keys_and_differ() -> None:
    names = [
        "a.jpg",
        "a.png",
        "x/a.jpg",
        "x-a.jpg",
        "x_a.jpg",
        "A.jpg",
        "\u00e9.jpg",
        ".jpg",
        "q" * 300 + ".jpg",
        "\u732b/1.jpg",
    ]
    keys = [media_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,90}", key) for key in keys), "as the members of a tar are named"
    assert media_key("./x//a.jpg") == media_key("x/a.jpg")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (FACTS.replace("train:", '"tr=ain":'), "'tr=ain' names files"),
        (FACTS + "pool: ../x\n", "'../x' names files"),
        (
            FACTS + "evaluation: {split: train, mode: rank, metric: multiple_choice, prompts: {'a/b': x}}\n",
            "'a/b' names",
        ),
        (
            FACTS + "train: [train]\nevaluation: {split: train, mode: rank, metric: x, prompts: {own: x}}\n",
            "both trained",
        ),
        (FACTS + "task: visual reasoning\n", "issing mandatory value"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, facts: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rows(tmp_path, facts=facts)


def test_own_data_cannot_take_the_name_of_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "vsr.yaml").write_text(FACTS.replace("mine", "vsr"))
    with pytest.raises(ValueError, match="vsr is a recipe of this project"):
        recipes.load(str(tmp_path / "vsr.yaml"))


def test_the_readme_example_runs_as_written(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().split("## Your own data")[1].split("\n## ")[0]
    recipe, train, test, commands = (text for _, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))
    assert len(recipe.splitlines()) == 12 and len(train.splitlines() + test.splitlines()) == 3
    for name in ("instructblip", "prepare.py", "train.py", "evaluate.py"):
        (tmp_path / name).symlink_to(ROOT / name)  # a checkout in which nothing was prepared
    raw = tmp_path / "data/raw/fridge"
    (raw / "photos").mkdir(parents=True)
    (tmp_path / "fridge.yaml").write_text(recipe)
    (raw / "train.jsonl").write_text(train)
    (raw / "test.jsonl").write_text(test)
    for line in (train + test).splitlines():
        Image.new("RGB", (40, 30), "red").save(raw / json.loads(line)["image"])
    unset = {name: value for name, value in os.environ.items() if not name.startswith("INSTRUCTBLIP_")}
    said = []
    for command in commands.strip().splitlines():
        words = shlex.split(command)
        assert words[0] == "python"
        done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True, env=unset)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    assert "fridge/train: 2 rows, written" in said[0] and "fridge/test: 1 rows, written" in said[0]
    assert (tmp_path / "data/prepared/previews/fridge.html").is_file()
    assert "step 20 of 20" in said[1] and "multiple_choice" in said[2]
    names = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "runs").rglob("*")]
    assert names and not [name for name in names if set(name) & set("=, ")]
