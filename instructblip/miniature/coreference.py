"""The held-out program of Visual Dialog: rounds of questions that only what was said before makes clear.

Every answer describes a thing so fully that at least a hundred different descriptions would fit the question.
So the options of a round are all of one kind, none repeats another in other words, and only the picture
tells which of them is right.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from instructblip.miniature.reasoning import RELATIONS
from instructblip.miniature.scenes import COLOURS, GRID, PAIRS, SHAPES, SIZES, Object, Scene

OPTIONS = 100
FURTHEST = {"left of": "left", "right of": "right", "above": "up", "below": "down"}
LAST_ROW = GRID * (GRID - 1)  # its first cell
NOTHING = "nothing"
BACK = "back"  # begins the kinds of questions whether the thing spoken of has a colour
EVERYTHING = tuple(  # that a scene of the set may show
    Object(shape, colour, size, cell) for (shape, colour), size, cell in product(PAIRS, SIZES, range(GRID**2))
)


class Round(NamedTuple):
    kind: str
    question: str
    answer: str
    among: tuple[str, ...]  # every answer that fits the question, the true one included
    about: Object  # what `it` and `the other one` of the next round refer to
    told: Object | None  # what the answer describes


def rounds(scene: Scene, number: int, rng: random.Random) -> list[Round]:
    """A dialogue of `number` rounds: new things as long as there are any, then questions back about told ones."""
    dialogue: list[Round] = []
    kinds: Counter[str] = Counter()
    for _ in range(number):
        candidates = _candidates(scene, dialogue)
        told = {past.told for past in dialogue}
        fresh = [next for next in candidates if next.told is None or next.told not in told]
        shuffled = rng.sample(fresh or candidates, len(fresh or candidates))
        chosen = min(shuffled, key=lambda next: kinds[next.kind])
        kinds[chosen.kind] += 1
        dialogue.append(chosen)
    return dialogue


def options(scene: Scene, chosen: Round, rng: random.Random) -> tuple[list[str], int]:
    """A hundred answers in random order and where the true one is.

    The descriptions of the scene's other things are always among them. The rest is drawn evenly: options that
    resembled the true one would give it away as their middle.
    """
    there = {_thing(item) for item in scene.objects} | {_look(item) for item in scene.objects}
    others = [answer for answer in chosen.among if answer != chosen.answer]
    tempting = [answer for answer in others if answer in there]
    rest = [answer for answer in others if answer not in there]
    drawn = tempting + rng.sample(rest, OPTIONS - 1 - len(tempting))
    rng.shuffle(drawn)
    place = rng.randrange(OPTIONS)
    return [*drawn[:place], chosen.answer, *drawn[place:]], place


def _candidates(scene: Scene, dialogue: Sequence[Round]) -> list[Round]:
    it = dialogue[-1].about if dialogue else None
    candidates = _of_a_shape(scene) + _furthest(scene)
    for item in scene.objects:
        candidates += _related(scene, item, f"the {item.name}")
    if it:
        candidates += _other_one(scene, it) + _related(scene, it, "it") + _next(scene, it) + _back(it)
    subjects = [None, *(past.about for past in dialogue)]
    asked = {_meaning(past.question, subject) for past, subject in zip(dialogue, subjects, strict=False)}
    return [next for next in candidates if _meaning(next.question, it) not in asked]


def _meaning(question: str, it: Object | None) -> tuple[str, Object | None]:
    """The same words ask something else where `it` has become another thing."""
    return question, it if {"it", "other"} & set(question.split()) else None


def _look(item: Object) -> str:
    """The place first: no other thing has it, so the rest can be looked up by what was said."""
    return f"in the {item.place} a {item.size} {item.colour} one"


def _thing(item: Object) -> str:
    return f"in the {item.place} a {item.size} {item.colour} {item.shape}"


ANY_OF_A_SHAPE = tuple(Object(SHAPES[0], *rest) for rest in product(COLOURS, SIZES, range(GRID**2)))
THINGS = tuple(_thing(item) for item in EVERYTHING)
LOOKS = tuple(_look(item) for item in ANY_OF_A_SHAPE)


@cache
def _at(cells: tuple[int, ...]) -> tuple[str, ...]:
    """Descriptions of everything that could be in one of the cells."""
    return tuple(_thing(item) for item in EVERYTHING if item.cell in cells)


AT = tuple(
    Object(SHAPES[0], next(iter(COLOURS)), next(iter(SIZES)), cell) for cell in range(GRID**2)
)  # one in each cell


def _of_a_shape(scene: Scene) -> list[Round]:
    shapes = Counter(item.shape for item in scene.objects)
    return [
        Round("look", f"what does the {item.shape} look like", _look(item), LOOKS, item, item)
        for item in scene.objects
        if shapes[item.shape] == 1
    ]


def _other_one(scene: Scene, it: Object) -> list[Round]:
    others = [item for item in scene.objects if item.shape == it.shape and item != it]
    question = f"what about the other {it.shape}"
    return [Round("other", question, _look(item), LOOKS, item, item) for item in others if len(others) == 1]


def _related(scene: Scene, it: Object, name: str) -> list[Round]:
    """Asked where one thing, or nothing, stands in the relation and enough could."""
    found = []
    for relation, holds in RELATIONS.items():
        among = (NOTHING, *_at(tuple(cell for cell in range(GRID**2) if holds(AT[cell], it))))
        there = [item for item in scene.objects if holds(item, it)]
        question = f"what is {relation} {name}"
        if len(among) < OPTIONS or len(there) > 1:
            continue
        if there:
            found.append(Round(f"related to {name.split()[0]}", question, _thing(there[0]), among, there[0], there[0]))
        else:
            found.append(Round("nothing", question, NOTHING, among, it, None))
    return found


def _furthest(scene: Scene) -> list[Round]:
    """Things that no other stands beyond or beside, and the first and the last: there is always a way to begin."""
    ordered = sorted(scene.objects, key=lambda item: item.cell)
    found = {"what comes first in reading order": ordered[0], "what comes last in reading order": ordered[-1]}
    for relation, holds in RELATIONS.items():
        for item in scene.objects:
            if all(holds(item, other) for other in scene.objects if other != item):
                found[f"what is furthest {FURTHEST[relation]}"] = item
    return [Round("furthest", question, _thing(item), THINGS, item, item) for question, item in found.items()]


def _next(scene: Scene, it: Object) -> list[Round]:
    """Its neighbours in reading order, where enough things could be there."""
    after = [item for item in scene.objects if item.cell > it.cell]
    before = [item for item in scene.objects if item.cell < it.cell]
    found = []
    if after and it.cell < LAST_ROW:
        among = _at(tuple(range(it.cell + 1, GRID**2)))
        following = min(after, key=lambda item: item.cell)
        found.append(Round("next", "what comes right after it", _thing(following), among, following, following))
    if before and it.cell >= GRID:
        among = _at(tuple(range(it.cell)))
        previous = max(before, key=lambda item: item.cell)
        found.append(Round("next", "what comes right before it", _thing(previous), among, previous, previous))
    return found


def _back(it: Object) -> list[Round]:
    """`is it red`: says yes or no, and what else it is."""
    return [
        Round(f"{BACK}, {it.colour == colour}", f"is it {colour}", _judged(it, colour), _JUDGEMENTS[colour], it, it)
        for colour in COLOURS
    ]


def _judged(item: Object, colour: str) -> str:
    if item.colour == colour:
        return f"yes, in the {item.place} a {item.size} one"
    return f"no, {_look(item)}"


_JUDGEMENTS = {colour: tuple(_judged(item, colour) for item in ANY_OF_A_SHAPE) for colour in COLOURS}
