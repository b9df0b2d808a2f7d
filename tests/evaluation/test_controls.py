"""Controls: what stands in for a question's picture, and that predictions and scores say so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from instructblip.choices import Images
from instructblip.data.sample import SCENES, Answer, Candidates, Form, MediaRef
from instructblip.evaluation.controls import answer_types, deranged, shuffled
from instructblip.evaluation.predictions import read
from instructblip.evaluation.questions import Question, identity

from .conftest import PICTURES, World, question, statement


def questions(count: int, images: int) -> list[Question]:
    return [Question(n, f"{n:03d}", "?" * (n % 7), (MediaRef("coco", str(n % images)),)) for n in range(count)]


@pytest.mark.parametrize("images", [2, 3, 10, 40])
@pytest.mark.parametrize("seed", range(5))
def test_shuffling_leaves_no_question_its_picture(images: int, seed: int) -> None:
    given = questions(40, images)
    moved = shuffled(given, seed)
    assert [(q.uid, q.prompt, q.row) for q in moved] == [(q.uid, q.prompt, q.row) for q in given]
    assert all(a.media != b.media for a, b in zip(given, moved, strict=True))
    assert {q.media for q in moved} == {q.media for q in given}
    assert shuffled(given, seed) == moved


def test_shuffling_depends_on_the_seed() -> None:
    given = questions(40, 40)
    assert shuffled(given, 0) != shuffled(given, 1)


def test_shuffling_one_picture_is_refused(world: World) -> None:
    world.prepare("vsr", [statement(number, image=0) for number in range(3)])
    with pytest.raises(ValueError, match="the 3 questions share one"):
        world.predict("vsr", images=Images.shuffled)


def test_a_shuffled_control_shows_other_pictures_and_says_so(world: World) -> None:
    conditions, predictions = read(world.predict("vqav2", images=Images.shuffled))
    assert conditions.images == "shuffled"
    assert all(each.output != f"{int(each.uid.rsplit('/', 1)[1]) % PICTURES * 40:03d}" for each in predictions)


@pytest.mark.parametrize("seed", range(3))
def test_deranged_pictures_come_from_questions_of_the_same_answer_type(seed: int) -> None:
    given = questions(40, 20)  # two questions a picture, one of each type
    types = [("yes/no",) if question.row < 20 else (f"other: {question.row % 3}", "other") for question in given]
    moved = deranged(given, types, seed)
    pictures = {kind: {q.media for q, own in zip(given, types, strict=True) if own[0] == kind} for (kind, *_) in types}
    for before, after, own in zip(given, moved, types, strict=True):
        assert identity(before) != identity(after) and after.media in pictures[own[0]]
        assert (before.uid, before.prompt, before.row) == (after.uid, after.prompt, after.row)
    assert deranged(given, types, seed) == moved


def test_a_type_of_one_picture_takes_from_the_next_wider_one() -> None:
    given = questions(6, 6)
    types = [("other: what is", "other") for _ in range(5)] + [("other: who made", "other")]
    moved = deranged(given, types, 0)
    assert all(identity(a) != identity(b) for a, b in zip(given, moved, strict=True))
    with pytest.raises(
        ValueError, match=r"of 6 questions those with answers of type 'number' are about one picture.*005"
    ):
        deranged(given, [*types[:5], ("number",)], 0)


def test_answer_types_are_read_off_the_truth() -> None:
    asked = question(0, "2")
    assert answer_types(asked) == ("number",) and answer_types(replace(asked, answers=(Answer("Two."),))) == ("number",)
    most = (Answer("zebra", 1), Answer("yes", 2), Answer("blue", 1))
    assert answer_types(replace(asked, answers=most)) == ("yes/no",)
    assert answer_types(replace(asked, answers=(Answer("red"),))) == ("other: how bright", "other")
    assert answer_types(statement(0)) == ("truefalse",)
    options = replace(asked, candidates=Candidates(items=("left", "3")), gold=1)
    assert answer_types(options) == ("number",) and answer_types(replace(options, gold=0))[1] == "other"
    assert answer_types(replace(asked, form=Form.caption, slots={})) == ("caption",)


def test_deranged_predictions_are_scored_as_such(world: World) -> None:
    path = world.predict("vqav2", images=Images.deranged)
    conditions, predictions = read(path)
    assert conditions.images == "deranged" and path.parent.name.endswith("-deranged")
    assert all(each.output != f"{int(each.uid.rsplit('/', 1)[1]) % PICTURES * 40:03d}" for each in predictions)
    assert world.score("vqav2", images=Images.deranged).images == "deranged"


def test_without_a_picture_the_model_reads_the_same_prompt_alone(world: World) -> None:
    _, own = read(world.predict("vqav2"))
    world.model.encoded.clear()
    _, alone = read(world.predict("vqav2", images=Images.none))
    assert [each.prompt for each in alone] == [each.prompt for each in own]
    assert all(each.output == each.prompt for each in alone) and world.model.encoded == []
    world.predict("vsr", images=Images.none)
    assert world.model.encoded == [] and world.score("vsr", images=Images.none).n == 11


def test_a_told_scene_stands_before_the_prompt_and_is_part_of_it(world: World) -> None:
    lines = [json.dumps({"pool": "coco", "key": str(key), "text": f"Grey {key}."}) for key in range(PICTURES)]
    (world.data / SCENES).write_text("\n".join(lines) + "\n")
    _, predictions = read(world.predict("vqav2", images=Images.told))
    for each in predictions:
        number = int(each.uid.rsplit("/", 1)[1])
        text = f"Grey {number % PICTURES}. Question: How bright is {number:02d}? Short answer:"
        assert each.prompt == each.output == text
    assert world.model.encoded == [] and world.score("vqav2", images=Images.told).n == 7
    (world.data / SCENES).write_text("\n".join(lines).replace("Grey", "Gray"))
    with pytest.raises(ValueError, match="7 of 7 prompts are not what the table gives now"):
        world.score("vqav2", images=Images.told)


def test_a_clip_is_told_by_its_own_key(world: World) -> None:
    clip = tuple(MediaRef("coco", f"vid1-{number}of2") for number in range(2))
    world.prepare("vqav2", [replace(question(0, "a"), media=clip)])
    (world.data / SCENES).write_text('{"pool": "coco", "key": "vid1", "text": "A star moves."}\n')
    _, (prediction,) = read(world.predict("vqav2", images=Images.told))
    assert prediction.prompt.startswith("A star moves. Question:")


def test_a_world_that_is_not_in_words_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match=r"images=told needs .*scenes.jsonl: only an embedded world"):
        world.predict("vqav2", images=Images.told)
    (world.data / SCENES).write_text('{"pool": "coco", "key": "0", "text": "Grey."}\n')
    with pytest.raises(ValueError, match=r"coco/1 has no words in scenes.jsonl"):
        world.predict("vqav2", images=Images.told)
    (world.data / SCENES).write_text('{"pool": "coco"}\n')
    with pytest.raises(ValueError, match=r"scenes.jsonl line 1 is no scene in words"):
        world.predict("vqav2", images=Images.told)


def test_only_what_the_language_model_does_not_read_counts_as_cut(world: World) -> None:
    world.prepare("vsr", [statement(0), statement(120)])
    assert [each.truncated for each in read(world.predict("vsr"))[1]] == [True, False]  # the longest first
    assert not any(each.truncated for each in read(world.predict("vsr", images=Images.none))[1])
