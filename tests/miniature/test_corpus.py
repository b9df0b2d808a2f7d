"""What the language models are told: right answers, every program, and no scene that is ever shown."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice

import pytest

from instructblip.miniature import corpus
from instructblip.miniature.albums import Picture, Sizes
from instructblip.miniature.corpus import BLANK, ROOM, Row, dialogues, pictures, texts
from instructblip.miniature.scenes import Domain, Role, Scene
from instructblip.miniature.world import World

from .evaluator import GRAMMAR, evaluate
from .test_telling import OBJECT, parsed

UNNAMED = re.sub(r"\?P<\w+>", "?:", OBJECT.pattern)
SCENE = re.compile(rf"(?:{UNNAMED}(?:, |\. ))+")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(texts(1500, seed=5))


def turns(row: Row) -> list[tuple[str, str]]:
    return [(row["instruction"], row["response"]), *row["following"]]


def told(row: Row) -> list[Scene]:
    """The scenes a row begins with: two of a clip, none of a crop, whose places are not told."""
    return [parsed(match.group()) for match in islice(SCENE.finditer(row["instruction"]), 2)]


def test_only_scenes_of_the_language_role_are_told(rows: list[Row]) -> None:
    scenes = [scene for row in [*rows, *dialogues(100, seed=5)] for scene in told(row)]
    assert len(scenes) > 1200
    assert {scene.role for scene in scenes} == {Role.language}


def test_answers_are_those_of_an_evaluator_of_its_own(rows: list[Row]) -> None:
    """Of all questions that it knows, in whatever wording."""
    checked: Counter[str] = Counter()
    for row in rows:
        scenes = told(row)
        for asked, said in turns(row):
            for program, pattern, _ in GRAMMAR:
                if program in ("seen-or-unanswerable", "about-genre") or len(scenes) != 1:
                    continue
                if (match := re.search(pattern, asked)) and not said.endswith((".", "?")):
                    text = match.group()
                    if program == "known-fact":
                        text, said = text[text.rindex("Wh") :], said.removeprefix("a ").removeprefix("the ")
                    assert evaluate(text, Picture(0, "", scenes[0])).answer == said, (row, asked, said)
                    checked[program] += 1
    assert {"colour-of", "what-at", "where", "exists", "known-fact", "title", "author", "genre", "word-on"} <= set(
        checked
    )
    assert min(checked.values()) > 20


def test_every_held_out_prompt_is_read(rows: list[Row]) -> None:
    asked = " ".join(text for row in [*rows, *dialogues(20, seed=5)] for text, _ in turns(row))
    for words in (
        "Based on the image, is this statement true or false?", "Options: (a)", "Context: ", "OCR tokens: ",
        "Is it hateful? Answer:", "Dialog history: ", "the thing left of", "which way does", "thank you Short answer:",
    ):  # fmt: skip
        assert words in asked


def test_rows_are_of_like_length_and_reproducible(rows: list[Row]) -> None:
    assert {row["image"] for row in rows} == {BLANK}
    following = [row for row in rows if row["following"]]
    assert len(following) > 1000
    assert all(
        sum(len(asked) + len(said) for asked, said in turns(row)) <= ROOM + len(row["response"]) for row in following
    )
    assert list(texts(50, seed=5)) == rows[:50]
    assert list(texts(50, seed=6)) != rows[:50]


def test_pictures_show_no_withheld_pair() -> None:
    world = World(3, Sizes(scale=0.01), Role.alignment)
    shown = {
        picture.file
        for name in corpus.ALBUMS
        for picture in world.pictures(name)
        if picture.scene.domain is not Domain.inside
    }
    told_files = [row["image"].partition("/")[2] for row in pictures(world)]
    assert shown and told_files and not shown & set(told_files)
    assert {picture.scene.role for name in corpus.ALBUMS for picture in world.pictures(name)} == {Role.alignment}


def test_options_have_letters() -> None:
    assert corpus.worded("{options}", ["red", "blue"]) == "(a) red (b) blue"
    assert corpus.some([1, 2], 5, random.Random(0)) in ([1, 2], [2, 1])
