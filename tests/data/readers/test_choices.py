"""Closed questions: statements, options and memes with the source's order, labels and pictures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.media import RawPool, decode
from instructblip.data.readers.base import Drop
from instructblip.data.readers.registry import read
from instructblip.data.sample import Sample
from instructblip.data.shards import member_name
from instructblip.data.templates import fill
from instructblip.evaluation.answers import verbaliser
from tests.conftest import World
from tests.fixtures import real_tree


def write(path: Path, *rows: object) -> None:
    """One JSON document, or JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))


def items(recipe: str, split: str, raw: Path) -> tuple[list[Sample], dict[str, str]]:
    """A split's Samples, and the reasons for what is none."""
    read_all = list(read(recipes.load(recipe), split, raw))
    drops = {item.uid: item.reason for item in read_all if isinstance(item, Drop)}
    return [item for item in read_all if isinstance(item, Sample)], drops


def prompt(recipe: str, profile: str, sample: Sample) -> str:
    return fill(recipes.load(recipe).protocol(profile).prompts[profile], sample)


def test_vsr_rows_are_numbered_and_labelled(world: World) -> None:
    rows, _ = items("vsr", "test", world.raw)
    assert [row.uid for row in rows] == [f"vsr/test/{number}" for number in range(16)]
    assert Counter(row.gold for row in rows) == {0: 8, 1: 8}
    assert all(row.candidates and row.candidates.vocab == "truefalse" for row in rows)


@pytest.mark.parametrize(
    ("split", "extra"),
    [
        ("test", {"subj": "cat", "obj": "mat", "vote_true_validator_id": "[2, 8]", "vote_false_validator_id": "[]"}),
        ("random_test", {"vote_true_validator_id": "[2, 8]", "vote_false_validator_id": "[]", "reference_frame": None}),
        ("test_v1", {"subj": "cat", "obj": "mat", "vote_true_validator_id": [2, 8], "vote_false_validator_id": []}),
    ],
)
def test_vsr_keeps_pictures_of_both_coco_folders_in_every_version(
    tmp_path: Path, split: str, extra: dict[str, Any]
) -> None:
    row = {
        "image": "000000000139.jpg",
        "caption": "The cat is on the mat.",
        "relation": "on",
        "annotator_id": 2,
        **extra,
    }
    (name,) = recipes.load("vsr").split(split).files
    links = [f"http://images.cocodataset.org/{folder}/000000000139.jpg" for folder in ("train2017", "val2017")]
    write(tmp_path / "vsr" / name, *({**row, "image_link": link, "label": label} for label, link in enumerate(links)))
    rows, drops = items("vsr", split, tmp_path)
    assert not drops and [row.gold for row in rows] == [0, 1]
    assert [row.media[0].relpath for row in rows] == ["train2017/000000000139.jpg", "val2017/000000000139.jpg"]
    assert {row.media[0].key for row in rows} == {"139"} and rows[0].uid != rows[1].uid
    assert rows[0].slots == {"statement": "The cat is on the mat."}


def test_vsr_is_evaluated_in_the_version_and_the_way_asked() -> None:
    recipe = recipes.load("vsr")
    default, first, said = (recipe.protocol("paper", variant) for variant in (None, "v1", "generate"))
    assert [recipe.split(protocol.split).rows for protocol in (default, first, said)] == [1222, 731, 1222]
    assert [protocol.mode.value for protocol in (default, first, said)] == ["rank", "rank", "generate"]


def icon(raw: Path, place: str, **fields: Any) -> None:
    row = {"question": "How many?", "choices": ["10", "1"], "answer": 0, "grade": "prek", "label": "E6", **fields}
    write(raw / "iconqa/iconqa_data/iconqa" / place / "data.json", {"ques_type": place.split("/")[1], **row})


def test_iconqa_keeps_the_order_of_its_choices(tmp_path: Path) -> None:
    icon(tmp_path, "test/choose_txt/7", choices=["10", "1", "yes, both"], answer=1)
    icon(tmp_path, "test/choose_txt/12", choices=[2, 1])
    icon(tmp_path, "test/choose_txt/13", answer=2)
    icon(tmp_path, "train/choose_txt/14")
    (rows, drops) = items("iconqa", "test", tmp_path)
    assert drops == {"iconqa/test/13": "answer is none of the choices"}
    numbers, words = rows
    assert words.candidates and words.candidates.items == ("10", "1", "yes, both") and words.gold == 1
    assert words.uid == "iconqa/test/7" and words.media[0].relpath == "iconqa/test/choose_txt/7/image.png"
    assert numbers.candidates and numbers.candidates.items == ("2", "1") and numbers.answers[0].text == "2"
    assert prompt("iconqa", "paper", words) == "Question: How many? Options: (a) 10 (b) 1 (c) yes, both. Short answer:"


def test_iconqa_names_problems_whose_folder_is_missing(tmp_path: Path) -> None:
    icon(tmp_path, "test/choose_txt/7")
    write(
        tmp_path / "iconqa/iconqa_data/pid_splits.json",
        {"choose_txt_test": ["7", "8"], "choose_txt_val": ["9"], "test": ["7", "8", "77"]},
    )
    rows, drops = items("iconqa", "test", tmp_path)
    assert [row.uid for row in rows] == ["iconqa/test/7"]
    assert drops == {"iconqa/test/8": "problem without its folder"}


def test_iconqa_picture_options_are_media_that_the_model_is_not_shown(tmp_path: Path) -> None:
    icon(tmp_path, "test/choose_img/7", choices=["choice_0.png", "choice_1.png"], answer=1)
    ((row,), _) = items("iconqa", "test_img", tmp_path)
    assert [ref.role for ref in row.media] == ["main", "choice:0", "choice:1"] and row.shown == row.media[:1]
    assert len({member_name(ref.key) for ref in row.media}) == 3, "each can be stored under its own name"
    assert row.media[2].relpath == "iconqa/test/choose_img/7/choice_1.png" and row.gold == 1


@pytest.fixture
def problems(tmp_path: Path) -> dict[str, dict[str, Any]]:
    row = {
        "question": "Which is farthest north?", "choices": ["Ohio", "Iowa"], "answer": 1, "hint": "", "image": "image.png",
        "subject": "social science", "topic": "geography", "category": "Geography", "grade": "grade2", "skill": "maps",
        "lecture": "the LECTURE", "solution": "the SOLUTION", "split": "test",
    }  # fmt: skip
    rows = {
        "1": row,
        "2": {**row, "hint": "Look at the map."},
        "3": {**row, "image": None},
        "4": {**row, "split": "val"},
    }
    write(tmp_path / "scienceqa/problems.json", rows)
    write(tmp_path / "scienceqa/pid_splits.json", {"test": ["1", "2", "3", "9"], "val": ["4"], "minitest": ["1"]})
    return rows


def test_scienceqa_takes_the_questions_with_a_picture(problems: dict[str, Any], tmp_path: Path) -> None:
    rows, drops = items("scienceqa", "test", tmp_path)
    assert [row.uid for row in rows] == ["scienceqa/test/1", "scienceqa/test/2"]
    assert drops == {"scienceqa/test/3": "no picture", "scienceqa/test/9": "listed without a problem"}
    assert rows[0].gold == 1 and rows[0].candidates and rows[0].candidates.items == ("Ohio", "Iowa")
    assert rows[0].media[0].key == "1" and [row.uid for row in items("scienceqa", "val", tmp_path)[0]] == [
        "scienceqa/val/4"
    ]


def test_scienceqa_never_shows_lecture_or_solution(problems: dict[str, Any], tmp_path: Path) -> None:
    for row in items("scienceqa", "test", tmp_path)[0]:
        assert "LECTURE" not in str(row) and "SOLUTION" not in str(row)


def test_scienceqa_without_a_hint_has_no_context_in_the_papers_prompt(problems: dict[str, Any], tmp_path: Path) -> None:
    bare, hinted = items("scienceqa", "test", tmp_path)[0]
    asked = "Question: Which is farthest north? Options: (a) Ohio (b) Iowa. Answer:"
    assert prompt("scienceqa", "paper", bare) == asked
    assert prompt("scienceqa", "paper", hinted) == f"Context: Look at the map. {asked}"
    assert prompt("scienceqa", "lavis", bare) == f"context: . {asked}", "as its guard, which is always true, leaves it"


@pytest.mark.parametrize("folder", ["scienceqa/images/test/1", "scienceqa/test/1"])
def test_scienceqa_pictures_may_lie_in_either_place(problems: dict[str, Any], tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "image.png").touch()
    row = items("scienceqa", "test", tmp_path)[0][0]
    assert RawPool.open("scienceqa", tmp_path / "scienceqa").find(row.media[0]).file == tmp_path / folder / "image.png"


def test_hateful_memes_are_known_by_their_picture(tmp_path: Path) -> None:
    write(
        tmp_path / "hateful_memes/dev_seen.jsonl",
        {"id": 1235, "img": "img/01235.png", "label": 1, "text": "a red square"},
        {"id": 42953, "img": "img/42953.png", "label": 0, "text": "none"},
    )
    hateful, harmless = items("hateful_memes", "dev_seen", tmp_path)[0]
    assert hateful.uid == "hateful_memes/dev_seen/01235" and hateful.media[0].key == "01235"
    assert (hateful.media[0].relpath, harmless.slots["statement"]) == ("img/01235.png", "none")
    assert prompt("hateful_memes", "paper", hateful) == (
        'This is an image with: "a red square" written on it. Is it hateful? Answer:'
    )
    assert hateful.candidates and hateful.candidates.vocab and (hateful.gold, harmless.gold) == (1, 0)
    assert verbaliser(hateful.candidates.vocab) == (("no", "false"), ("yes", "true")), "label 1 is hateful"


def test_hateful_memes_without_labels_are_samples_without_gold(tmp_path: Path) -> None:
    write(tmp_path / "hateful_memes/test_unseen.jsonl", {"id": 3, "img": "img/00003.png", "text": "a"})
    ((row,), drops) = items("hateful_memes", "test_unseen", tmp_path)
    assert row.gold is None and not drops


def test_hateful_memes_are_never_fetched() -> None:
    recipe = recipes.load("hateful_memes")
    assert recipe.access.value == "click_through" and recipe.no_mirror and not recipe.mirrors
    assert all(download.step for download in recipe.downloads)


@pytest.mark.parametrize(
    ("variant", "split"), [(None, "dev_seen"), ("dev_unseen", "dev_unseen"), ("test_seen", "test_seen")]
)
def test_hateful_memes_are_evaluated_where_asked(variant: str | None, split: str) -> None:
    protocol = recipes.load("hateful_memes").protocol("paper", variant)
    assert (protocol.split, protocol.metric) == (split, "auroc")


REAL = [
    ("vsr", "train"), ("vsr", "dev"), ("vsr", "test"), ("vsr", "random_train"), ("vsr", "random_dev"), ("vsr", "random_test"),
    ("iconqa", "test"), ("iconqa", "test_img"), ("scienceqa", "train"), ("scienceqa", "val"), ("scienceqa", "test"),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "split"), REAL)
def test_real_files_are_read_without_an_unexplained_drop(real: Path, tmp_path: Path, recipe: str, split: str) -> None:
    real_tree.link(real, tmp_path)
    rows, drops = items(recipe, split, tmp_path)
    assert rows and len({row.uid for row in rows}) == len(rows)
    assert set(drops.values()) <= ({"no picture"} if recipe == "scienceqa" else set())
    for row in rows:
        assert row.gold is not None and (prompt(recipe, "paper", row) and prompt(recipe, "lavis", row))


@pytest.mark.parametrize(("recipe", "split"), [("iconqa", "test"), ("iconqa", "test_img"), ("scienceqa", "test")])
def test_real_pictures_are_found_and_decoded(real: Path, tmp_path: Path, recipe: str, split: str) -> None:
    real_tree.link(real, tmp_path)
    pool = RawPool.open(recipe, tmp_path / recipe)
    for row in items(recipe, split, tmp_path)[0][:20]:
        for ref in row.media:
            assert min(decode(pool.find(ref).read()).size) > 0
