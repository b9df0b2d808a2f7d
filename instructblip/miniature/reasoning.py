"""Programs that only held-out datasets use: relations told or in two hops, counting, comparing, rules in a context."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import NamedTuple

from instructblip.miniature.scenes import COLOURS, SHAPES, SIZES, Object, Scene, sample

RELATIONS: dict[str, Callable[[Object, Object], bool]] = {
    "left of": lambda one, other: one.column < other.column,
    "right of": lambda one, other: one.column > other.column,
    "above": lambda one, other: one.row < other.row,
    "below": lambda one, other: one.row > other.row,
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
ASKED_COUNTS = ("0", "1", "2", "3")  # of one shape: scenes with more are too seldom to balance
SCENE_COUNTS = ("2", "3", "4", "5")
YES_NO = ("yes", "no")
DOINGS = {  # what things of a kind do, and what one of them does
    "sing": "sings",
    "dance": "dances",
    "sleep": "sleeps",
    "jump": "jumps",
    "swim": "swims",
    "fly": "flies",
}
MAX_OPTIONS = 5


class Statement(NamedTuple):
    subject: str
    relation: str
    other: str
    true: bool

    @property
    def text(self) -> str:
        return f"The {self.subject} is {self.relation} the {self.other}."

    @property
    def balance(self) -> tuple[object, ...]:
        return self.true, (self.relation, self.true), (self.subject, self.true), (self.other, self.true)


class Hop(NamedTuple):
    """What `attribute` (color or shape) has the only thing that stands in `relation` to `other`?"""

    attribute: str
    relation: str
    other: Object
    found: Object

    @property
    def text(self) -> str:
        return f"What {self.attribute} is the thing {self.relation} the {self.other.name}?"

    @property
    def answer(self) -> str:
        return self.found.colour if self.attribute == "color" else self.found.shape

    @property
    def balance(self) -> tuple[object, ...]:
        return self.answer, (self.relation, self.answer), (self.other.name, self.answer)


class Closed(NamedTuple):
    """A question whose answer is one `among` a few, all of which are equally often right."""

    text: str
    answer: str
    among: tuple[str, ...]

    @property
    def balance(self) -> tuple[object, ...]:
        return (self.among, self.answer), (self.text, self.answer)

    def options(self, rng: random.Random) -> tuple[list[str], int]:
        """Two to five options in random order, and where among them the answer is."""
        number = rng.randint(2, min(MAX_OPTIONS, len(self.among)))
        chosen = rng.sample([other for other in self.among if other != self.answer], number - 1)
        place = rng.randrange(number)
        return [*chosen[:place], self.answer, *chosen[place:]], place


class Ruled(NamedTuple):
    """What does `subject` do, by a rule about the `kind` (color, shape or size) that it has in the picture?"""

    kind: str
    subject: str
    value: str

    @property
    def text(self) -> str:
        return f"What does the {self.subject} do?"

    @property
    def balance(self) -> tuple[object, ...]:
        return self.kind, (self.kind, self.value), (self.subject, self.value)

    def context(self, rng: random.Random) -> tuple[list[tuple[str, str]], int]:
        """Pairs of a value and what its things do, in random order, and which pair holds for the subject."""
        number = rng.randint(2, min(MAX_OPTIONS, len(VALUES[self.kind])))
        values = rng.sample([value for value in VALUES[self.kind] if value != self.value], number - 1)
        place = rng.randrange(number)
        values.insert(place, self.value)
        return list(zip(values, rng.sample(tuple(DOINGS), number), strict=True)), place


VALUES: dict[str, tuple[str, ...]] = {"color": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES)}


def statements(scene: Scene) -> list[Statement]:
    """Every true statement about two objects and, with the opposite relation, its false twin."""
    return [
        Statement(subject.name, relation if true else OPPOSITE[relation], other.name, true)
        for subject, other in permutations(scene.objects, 2)
        for relation, holds in RELATIONS.items()
        if holds(subject, other)
        for true in (True, False)
    ]


def two_hop(scene: Scene) -> list[Hop]:
    """Asked where exactly one thing stands in the relation to the thing named."""
    hops = []
    for other in scene.objects:
        for relation, holds in RELATIONS.items():
            found = [item for item in scene.objects if holds(item, other)]
            if len(found) == 1:
                hops += [Hop(attribute, relation, other, found[0]) for attribute in ("color", "shape")]
    return hops


def with_hop(rng: random.Random) -> Scene:
    """A scene of two to four objects that a second hop can be asked of."""
    while not two_hop(scene := sample(rng, (2, 3, 4))):
        pass
    return scene


def counting(scene: Scene) -> list[Closed]:
    number = _numbers(scene, "shape")
    total = str(len(scene.objects))
    asked = [Closed(f"How many {shape}s are there?", str(number[shape]), ASKED_COUNTS) for shape in SHAPES]
    asked += [Closed("How many shapes are there?", total, SCENE_COUNTS)]
    return [question for question in asked if question.answer in question.among]


def comparing(scene: Scene) -> list[Closed]:
    """`most` is asked where one shape or one colour is more frequent than every other."""
    shapes, colours = _numbers(scene, "shape"), _numbers(scene, "colour")
    asked = [
        Closed(f"Are there more {one}s than {other}s?", "yes" if shapes[one] > shapes[other] else "no", YES_NO)
        for one, other in permutations(SHAPES, 2)
        if shapes[one]
    ]
    asked += [Closed("Which shape is there most of?", shape, SHAPES) for shape in _most(shapes)]
    asked += [Closed("Which color is there most of?", colour, tuple(COLOURS)) for colour in _most(colours)]
    return asked


def ruled(scene: Scene) -> list[Ruled]:
    """Everything a rule can be asked of; no question names the value that its rule is about."""
    shapes, colours = _numbers(scene, "shape"), _numbers(scene, "colour")
    asked = []
    for item in scene.objects:
        if shapes[item.shape] == 1:
            asked.append(Ruled("color", item.shape, item.colour))
        if colours[item.colour] == 1:
            asked.append(Ruled("shape", f"{item.colour} thing", item.shape))
        asked.append(Ruled("size", item.name, item.size))
    return asked


def _numbers(scene: Scene, attribute: str) -> Counter[str]:
    return Counter(getattr(item, attribute) for item in scene.objects)


def _most(numbers: Mapping[str, int]) -> list[str]:
    """The most frequent, unless several are."""
    highest = max(numbers.values())
    most = [name for name, number in numbers.items() if number == highest]
    return most if len(most) == 1 else []
