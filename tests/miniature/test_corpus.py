"""What the language models are told: right answers, every program, and no scene that is ever shown."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice

import pytest

from instructblip.miniature import corpus
from instructblip.miniature.albums import Picture, Sizes
from instructblip.miniature.corpus import BLANK, ROOM, Row, pictures, texts
from instructblip.miniature.design import PROGRAMS_OF
from instructblip.miniature.scenes import Domain, Role, Scene
from instructblip.miniature.turns import BARE, LOOKUPS, WORDED, some, worded
from instructblip.miniature.world import World

from .evaluator import GRAMMAR, evaluate
from .test_telling import OBJECT, parsed

NUMBERS = {
    "scene_lookups": 100,
    "scene_chains": 100,
    "scene_questions": 300,
    "scene_text": 1200,
    "scene_references": 100,
}
UNNAMED = re.sub(r"\?P<\w+>", "?:", OBJECT.pattern)
SCENE = re.compile(rf"(?:{UNNAMED}(?:, |\. ))+")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Of every course."""
    return [row for course, number in NUMBERS.items() for row in texts(course, number, seed=5)]


def turns(row: Row) -> list[tuple[str, str]]:
    return [(row["instruction"], row["response"]), *row.get("following", ())]


def told(row: Row) -> list[Scene]:
    """The scenes a row begins with: two of a clip, none of a crop, whose places are not told."""
    return [parsed(match.group()) for match in islice(SCENE.finditer(row.get("context", row["instruction"]) + " "), 2)]


def test_only_scenes_of_the_language_role_are_told(rows: list[Row]) -> None:
    scenes = [scene for row in rows for scene in told(row)]
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


def test_rules_are_applied_to_what_the_scene_tells(rows: list[Row]) -> None:
    """In whatever wording: the thing named is of the one kind, shape, colour or size, that its rule names."""
    checked = Counter[bool]()
    for row in rows:
        for asked, said in turns(row):
            if match := re.search(r"What does the ([a-z ]+?)(?: thing)? do\?", asked):
                context = f"{row.get('context', '')} {asked}"
                rules = dict(re.findall(r"(?:what is|Here a|, a|and a) (\w+) (\w+s)\b", context))
                things = [{thing.size, thing.colour, thing.shape} for thing in told(row)[0].objects]
                (kind,) = next(thing for thing in things if set(match[1].split()) <= thing) & set(rules)
                assert said == f"{kind} {rules[kind]}", (row, asked, said)
                checked["Options" in asked] += 1
    assert min(checked[True], checked[False]) > 100, checked


def test_every_held_out_prompt_is_read(rows: list[Row]) -> None:
    asked = " ".join(text for row in rows for text, _ in turns(row))
    for words in (
        "Based on the image, is this statement true or false?", "Options: (a)", "Context: ", "OCR tokens: ",
        "Is it hateful? Answer:", "Dialog history: ", "the thing left of", "which way does", "thank you Short answer:",
    ):  # fmt: skip
        assert words in asked


def test_rows_are_full_but_not_too_long_and_reproducible(rows: list[Row]) -> None:
    assert {row["image"] for row in rows} == {BLANK}
    asked = [[text for turn in turns(row) for text in turn] for row in rows]
    lengths = [
        corpus._length(row.get("context", "")) + sum(map(corpus._length, texts))
        for row, texts in zip(rows, asked, strict=True)
    ]
    assert all(length <= ROOM for length, row in zip(lengths, rows, strict=True) if "following" in row)
    assert sum(length > ROOM / 2 for length in lengths) > 0.7 * len(rows)
    assert list(texts("scene_text", 50, seed=5)) == rows[500:550]
    assert list(texts("scene_text", 50, seed=6)) != rows[500:550]


def test_captions_are_of_any_detail_and_need_not_be_asked_for(rows: list[Row]) -> None:
    """The second stage's prompt is empty: there queries alone have to lead to a caption."""
    unasked = [row for row in rows if re.fullmatch(SCENE, row["instruction"] + " ")]
    assert len(unasked) > 30 and all("following" not in row for row in unasked)
    said = [row["response"] for row in unasked]
    sized = [each for each in said if re.search("small|large", each)]
    placed = [each for each in said if re.search(" in the ", each)]
    assert min(len(sized), len(placed)) > 0.08 * len(said) and len(sized) + len(placed) < 0.7 * len(said)


def test_some_clips_are_still(rows: list[Row]) -> None:
    """As in the videos, of which a blind model must not learn that something always moves."""
    said = [said for row in rows for asked, said in turns(row) if re.search("is moving|the moving shape", asked)]
    assert len(said) > 200 and 0.04 < said.count("none") / len(said) < 0.4


def test_a_row_tells_of_one_scene(rows: list[Row]) -> None:
    """A second one would have to be told from the first; but a meme's word is told with its question."""
    for row in rows:
        assert not any(re.match(SCENE, asked) for asked, _ in row.get("following", ())), row


def test_the_courses_go_from_few_bare_questions_to_all_in_the_recipes_wordings(rows: list[Row]) -> None:
    lookups, chains, questions, wordings = rows[:100], rows[100:200], rows[200:500], rows[500:]
    allowed = [pattern for name, pattern, _ in GRAMMAR if name in LOOKUPS]
    assert all(any(re.search(each, asked) for each in allowed) for row in lookups for asked, _ in turns(row))
    of_chains = ("what word is on", "What does the", "what is furthest")
    assert all(any(words in text for row in chains for text, _ in turns(row)) for words in of_chains)
    words = ("Short answer:", "Options:", "Dialog history", "Is it hateful")
    asked = ["\n".join(text for text, _ in turns(row)) for row in chains + questions]
    assert not any(word in text for word in words for text in asked)
    assert any("OCR" not in text and "what word is on" in text for text in asked)
    worded = [text for row in wordings for text, _ in turns(row)]
    assert all(any(word in text for text in worded) for word in words)


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
    assert worded("{options}", ["red", "blue"]) == "(a) red (b) blue"
    assert some([1, 2], 5, random.Random(0)) in ([1, 2], [2, 1])


def test_every_turn_names_its_program() -> None:
    rng = random.Random(0)
    said = [
        turn
        for make in corpus.EVERYTHING
        for manner in (BARE, WORDED)
        for _ in range(60)
        for turn in make(manner, Role.language, rng)[1]
    ]
    designed = {name for entry in PROGRAMS_OF.values() for name in entry.programs}
    named = {turn.program for turn in said}
    assert named <= designed | {"backwards"} and designed - named == {"list-new-objects"}


def test_judgements_of_what_was_spoken_of_can_be_all_that_is_asked() -> None:
    """And both are as frequent: one who always says no learns nothing of what was spoken of."""
    rng = random.Random(6)
    said = [turn.said for _ in range(100) for turn in corpus.judged_back(BARE, Role.language, rng)[1]]
    verdicts = Counter(response.split(", ")[0] for response in said)
    assert verdicts.keys() == {"yes", "no"} and min(verdicts.values()) > 0.3 * len(said) > 50
