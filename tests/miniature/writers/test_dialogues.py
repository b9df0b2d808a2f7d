"""Visual Dialog's rounds and LLaVA's turns, understood by a listener of their own who knows the scene."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from instructblip.miniature.scenes import PLACES, Object, Scene
from instructblip.miniature.world import World
from tests.miniature.writers.test_reasoning import beyond

Load = Callable[[str], Any]
HELD_OUT_WORDS = re.compile(
    r"\b(left of|right of|above|below|how many|more|most|than|other one|moves?|moving|says)\b", re.I
)
LLAVA = {"conversation_58k": "dialogue", "detail_23k": "detail", "complex_reasoning_77k": "why"}
FAR = {"left": "left of", "right": "right of", "up": "above", "down": "below"}


def fits(item: Object, description: str) -> bool:
    """`in the center a small red one`: true of the item?"""
    match = re.fullmatch(r"in the (.+) a (small|large) (?:(\w+) )?(\w+)", description)
    assert match, description
    place, size, colour, shape = match.groups()
    return (
        size == item.size
        and colour in (None, item.colour)
        and shape in ("one", item.shape)
        and place == PLACES[item.cell]
    )


class Listener:
    def __init__(self, scene: Scene) -> None:
        self.things = scene.objects
        self.it: Object | None = None

    def hear(self, question: str) -> tuple[Object | None, str]:
        """(the thing that the answer describes, what stands before its description)."""
        if match := re.fullmatch(r"is it (\w+)", question):
            assert self.it
            return self.it, "yes, " if self.it.colour == match[1] else "no, "
        found = self.found(question)
        assert len(found) <= 1, question
        if found:
            self.it = found[0]
        return (found[0] if found else None), ""

    def found(self, question: str) -> list[Object]:
        order = sorted(self.things, key=lambda item: item.cell)
        if match := re.fullmatch(r"what does the (\w+) look like", question):
            return [item for item in self.things if item.shape == match[1]]
        if match := re.fullmatch(r"what about the other (\w+)", question):
            assert self.it and self.it.shape == match[1]
            return [item for item in self.things if item.shape == match[1] and item != self.it]
        if match := re.fullmatch(r"what is furthest (\w+)", question):
            relation = FAR[match[1]]
            return [one for one in self.things if all(beyond(one, relation, two) for two in self.things if two != one)]
        if match := re.fullmatch(r"what comes (first|last) in reading order", question):
            return [order[0 if match[1] == "first" else -1]]
        if match := re.fullmatch(r"what comes right (after|before) it", question):
            assert self.it
            return [order[order.index(self.it) + (1 if match[1] == "after" else -1)]]
        match = re.fullmatch(r"what is (left of|right of|above|below) (it|the (\w+) (\w+))", question)
        assert match, question
        (other,) = (
            [self.it] if match[2] == "it" else [i for i in self.things if (i.colour, i.shape) == match.group(3, 4)]
        )
        assert other
        self.it = other  # until something is found
        return [item for item in self.things if beyond(item, match[1], other)]


def test_answers_of_rounds_are_true_and_no_other_option_is(load: Load, world: World) -> None:
    scenes = {picture.id: picture.scene for picture in world.pictures("visdial_val")}
    data = load("visdial/visdial_1.0_val.json")["data"]
    places = []
    for dialog in data["dialogs"]:
        listener = Listener(scenes[dialog["image_id"]])
        assert len(dialog["dialog"]) == 10
        for turn in dialog["dialog"]:
            question, answer = data["questions"][turn["question"]], data["answers"][turn["answer"]]
            options = [data["answers"][place] for place in turn["answer_options"]]
            assert "?" not in question and options[turn["gt_index"]] == answer
            assert len(options) == len(set(options)) == 100
            thing, before = listener.hear(question)
            if thing is None:
                assert answer == "nothing"
                continue
            right = [
                option
                for option in options
                if option.startswith(before) and option != "nothing" and fits(thing, option.split(", ")[-1])
            ]
            assert right == [answer], (question, answer, right)
            places.append(turn["gt_index"])
    assert len(data["dialogs"]) == 60
    assert 40 < sum(places) / len(places) < 60 and len(set(places)) > 80


def test_rounds_need_what_was_said_before_and_the_picture(load: Load) -> None:
    """Most rounds but the first refer back; about half describe a thing that no answer before has described."""
    data = load("visdial/visdial_1.0_val.json")["data"]
    back, new = 0, 0
    for dialog in data["dialogs"]:
        told: set[str] = set()
        for turn in dialog["dialog"]:
            question, answer = data["questions"][turn["question"]], data["answers"][turn["answer"]]
            place = answer.partition("in the ")[2].partition(" a ")[0]
            back += bool({"it", "other"} & set(question.split()))
            new += place not in told
            told.add(place)
    assert back > 250
    assert new > 300


def test_all_options_of_a_round_are_of_one_kind(load: Load) -> None:
    """Told apart by their form alone, none could be left out."""
    data = load("visdial/visdial_1.0_val.json")["data"]
    for dialog in data["dialogs"]:
        for turn in dialog["dialog"]:
            options = [data["answers"][place] for place in turn["answer_options"]]
            question = data["questions"][turn["question"]]
            if question.startswith("is it"):
                colour = question.split()[-1]
                assert all(
                    (o.startswith("no, ") and colour not in o) or re.fullmatch(r"yes, in the .+ a \w+ one", o)
                    for o in options
                )
            elif question.startswith(("what does", "what about")):
                assert all(re.fullmatch(r"in the .+ a \w+ \w+ one", option) for option in options)
            else:
                assert all(
                    option == "nothing" or re.fullmatch(r"in the .+ a \w+ \w+ \w+", option) for option in options
                )


def test_dense_annotations_grade_one_round_a_dialogue(load: Load) -> None:
    data = load("visdial/visdial_1.0_val.json")["data"]
    dense = load("visdial/visdial_1.0_val_dense_annotations.json")
    assert [row["image_id"] for row in dense] == [dialog["image_id"] for dialog in data["dialogs"]]
    assert {row["round_id"] for row in dense} == set(range(1, 11))
    for row, dialog in zip(dense, data["dialogs"], strict=True):
        turn = dialog["dialog"][row["round_id"] - 1]
        assert len(row["gt_relevance"]) == 100
        assert [k for k, grade in enumerate(row["gt_relevance"]) if grade == 1] == [turn["gt_index"]]


def test_in_the_test_set_only_the_last_round_has_options(load: Load) -> None:
    dialogs = load("visdial/visdial_1.0_test.json")["data"]["dialogs"]
    assert len({len(dialog["dialog"]) for dialog in dialogs}) > 2
    for dialog in dialogs:
        *turns, last = dialog["dialog"]
        assert set(last) == {"question", "answer_options"}
        assert all(set(turn) == {"question", "answer"} for turn in turns)


@pytest.mark.parametrize("name", LLAVA)
def test_llava_records_mark_the_picture_and_speak_in_turn(load: Load, world: World, name: str) -> None:
    records = load(f"llava/{name}.json")
    ids = {f"{picture.id:012d}" for picture in world.pictures("coco_train")}
    marked = Counter()
    for record in records:
        assert record["id"] in ids and record["image"] == f"{record['id']}.jpg"
        said = record["conversations"]
        assert [turn["from"] for turn in said] == ["human", "gpt"] * (len(said) // 2)
        first, *others = (turn["value"] for turn in said)
        assert first.startswith("<image>\n") != first.endswith("\n<image>")
        assert not any("<image>" in value for value in others)
        marked[first.startswith("<image>")] += 1
    assert len(records) == {"conversation_58k": 725, "detail_23k": 287, "complex_reasoning_77k": 962}[name]
    assert len({record["id"] for record in records}) < len(records), "a picture comes more than once"
    assert abs(marked[True] - marked[False]) < 0.2 * len(records)
    assert {len(record["conversations"]) for record in records} == ({4, 6, 8} if name == "conversation_58k" else {2})


def sentence_holds(sentence: str, scene: Scene) -> bool:
    """Whether what a reply states is so."""
    there = [(item, f"{item.size} {item.colour} {item.shape}", PLACES[item.cell]) for item in scene.objects]
    if match := re.fullmatch(r"The (\w+) is (\w+)\.", sentence):
        return [item.colour for item in scene.objects if item.shape == match[1]] == [match[2]]
    if match := re.fullmatch(r"The shape in the (.+) is an? (\w+)\.", sentence):
        return [item.shape for item, _, place in there if place == match[1]] == [match[2]]
    if match := re.fullmatch(r"The (?:(\w+) )?(\w+) is in the (.+)\.", sentence):
        return [p for i, _, p in there if i.shape == match[2] and match[1] in (None, i.colour)] == [match[3]]
    if match := re.fullmatch(r"(Yes|No), there is (?:an?|no) (\w+) (\w+) in the picture\.", sentence):
        return (match[1] == "Yes") == any((i.colour, i.shape) == match.group(2, 3) for i in scene.objects)
    for pattern in (
        r"There is an? (?P<what>.+) in the (?P<place>.+)\.",
        r"In the (?P<place>.+), there is an? (?P<what>.+)\.",
        r"The (?P<place>.+) shows an? (?P<what>.+)\.",
    ):
        if match := re.fullmatch(pattern, sentence):
            return any((name, place) == (match["what"], match["place"]) for _, name, place in there)
    match = re.fullmatch(r"Because there is an? (\w+) (\w+) in the (.+), and (.+) (?:is|has) (.+)\.", sentence)
    assert match, sentence
    return any((i.colour, i.shape, place) == match.group(1, 2, 3) for i, _, place in there) and bool(
        {match[2], match[1]} & set(f"{match[4]} {match[5]}".split())
    )


@pytest.mark.parametrize("name", LLAVA)
def test_llava_replies_are_true_of_the_scene(load: Load, world: World, name: str) -> None:
    scenes = {f"{picture.id:012d}": picture.scene for picture in world.pictures("coco_train")}
    for record in load(f"llava/{name}.json"):
        replies = [turn["value"] for turn in record["conversations"][1::2]]
        sentences = [text for reply in replies for text in re.findall(r"[^.]+\.", reply)]
        if name == "detail_23k":
            assert len(sentences) == 1 + len(scenes[record["id"]].objects)
            sentences = sentences[1:]
        assert all(sentence_holds(sentence.strip(), scenes[record["id"]]) for sentence in sentences), replies


@pytest.mark.parametrize("name", LLAVA)
def test_llava_says_nothing_that_is_held_out(load: Load, name: str) -> None:
    for record in load(f"llava/{name}.json"):
        for turn in record["conversations"]:
            assert not HELD_OUT_WORDS.search(turn["value"]), turn["value"]


def test_yes_and_no_are_balanced_in_conversations(load: Load) -> None:
    replies = [
        turn["value"].split(",")[0]
        for record in load("llava/conversation_58k.json")
        for turn in record["conversations"]
    ]
    answers = Counter(reply for reply in replies if reply in ("Yes", "No"))
    assert 0.9 < answers["Yes"] / answers["No"] < 1.1
