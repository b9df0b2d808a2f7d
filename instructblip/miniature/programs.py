"""What is said about a scene. A *program* is a kind of question: all that it can ask of a scene, answered.

A program belongs either to held-in or to held-out datasets. Those of closed sets that are held out (relations, counts,
comparisons, rules) are in `reasoning`: nothing here may speak of one object's place relative to another.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple, Protocol, TypeVar

from instructblip.miniature.scenes import PAIRS, Object, Scene

Detail = Callable[[Object], str]  # how an object is named


@dataclass(frozen=True)
class Grammar:
    """How captions are worded: sentences, ways to name an object (in turn), what joins the last two."""

    wordings: tuple[str, ...]
    details: tuple[Detail, ...]
    joiner: str = " and "


def named(item: Object) -> str:
    return item.name


def sized(item: Object) -> str:
    return f"{item.size} {item.name}"


def placed(item: Object) -> str:
    return f"{item.name} in the {item.place}"


DETAILS: tuple[Detail, ...] = (named, named, named, sized, placed)
LISTED = Grammar(
    (
        "{objects}",
        "{objects}.",
        "{objects} on a plain background.",
        "a picture of {objects}",
        "an image with {objects}",
        "there is {objects}.",
        "the picture shows {objects}.",
        "a drawing of {objects}.",
        "an image showing {objects}",
        "you can see {objects}.",
    ),
    DETAILS,
)
LETTERED = Grammar(  # of objects on which words may be printed
    LISTED.wordings,
    (
        lambda item: f"{item.name} with the word {item.word} on it" if item.word else item.name,
        lambda item: f"{item.name} that says {item.word}" if item.word else item.name,
        lambda item: f"{item.name} reading {item.word}" if item.word else item.name,
        lambda item: f"{item.size} {item.name} that says {item.word}" if item.word else f"{item.size} {item.name}",
        lambda item: f"{item.name} with {item.word} written on it" if item.word else item.name,
    ),
)
STRIPED = Grammar(  # held out: other sentences, other phrases, punctuation set apart as in Flickr30K
    (
        "{objects} against stripes .",
        "Stripes , and before them {objects} .",
        "Somebody put {objects} on striped paper .",
        "Striped wallpaper showing {objects} .",
        "{objects} seen on a striped wall .",
        "One sees {objects} over stripes .",
    ),
    (
        lambda item: f"{item.shape} that is {item.colour}",
        lambda item: f"{item.shape} painted {item.colour}",
        lambda item: f"{item.size} {item.shape} in {item.colour}",
    ),
    " together with ",
)
SYNONYMS = {  # what an annotator may write instead
    "purple": "violet",
    "circle": "round",
    "square": "box",
    "center": "middle",
    "top center": "top",
    "bottom center": "bottom",
    "middle left": "left",
    "middle right": "right",
}


class Question(NamedTuple):
    text: str
    answer: str

    @property
    def balance(self) -> tuple[object, ...]:
        return self.answer, (self.text, self.answer)


class Balanced(Protocol):
    """Something to ask; what of it shall be balanced, the most important first."""

    @property
    def balance(self) -> tuple[object, ...]: ...


Item = TypeVar("Item", bound=Balanced)


def captions(scene: Scene, rng: random.Random, number: int = 5, grammar: Grammar = LISTED) -> list[str]:
    """Captions that list every object, in different wordings, orders and detail."""
    wordings = rng.sample(grammar.wordings, number)
    return [
        _caption(scene, wording, detail, grammar.joiner, rng)
        for wording, detail in zip(wordings, cycle(grammar.details), strict=False)
    ]


def caption(scene: Scene, rng: random.Random, grammar: Grammar = LISTED) -> str:
    """One of any detail."""
    return rng.choice(captions(scene, rng, grammar=grammar))


def _caption(scene: Scene, wording: str, detail: Detail, joiner: str, rng: random.Random) -> str:
    phrases = [with_article(detail(item)) for item in rng.sample(scene.objects, len(scene.objects))]
    listed = joiner.join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
    text = wording.format(objects=listed)
    return text[0].upper() + text[1:] if text.endswith(".") else text


def with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def colour_of(scene: Scene) -> list[Question]:
    """Asked of the shapes that the scene has once."""
    return [Question(f"What color is the {item.shape}?", item.colour) for item in only_of_their_shape(scene)]


def what_at(scene: Scene) -> list[Question]:
    return [Question(f"What shape is in the {item.place}?", item.shape) for item in scene.objects]


def where(scene: Scene) -> list[Question]:
    """The colour is named only where the shape alone would be ambiguous."""
    alone = only_of_their_shape(scene)
    names = [item.shape if item in alone else item.name for item in scene.objects]
    return [Question(f"Where is the {name}?", item.place) for name, item in zip(names, scene.objects, strict=True)]


def exists(scene: Scene) -> list[Question]:
    """A `no` shares its shape or its colour with something in the scene: neither alone gives it away."""
    there = {(item.shape, item.colour) for item in scene.objects}
    shapes, colours = {shape for shape, _ in there}, {colour for _, colour in there}
    return [
        Question(f"Is there {with_article(f'{colour} {shape}')}?", "yes" if (shape, colour) in there else "no")
        for shape, colour in PAIRS
        if shape in shapes or colour in colours
    ]


Program = Callable[[Scene], list[Question]]
PROGRAMS: dict[str, Program] = {"colour-of": colour_of, "what-at": what_at, "where": where, "exists": exists}


def least_asked(candidates: Sequence[Item], asked: Counter[object], rng: random.Random) -> Item:
    """The candidate whose first balance key was asked least so far; ties go by the next key, then by chance.

    Counts it in `asked`: drawn one after the other, answers come out balanced over the dataset and, as far as
    the scenes allow, within each wording of a question.
    """
    shuffled = rng.sample(candidates, len(candidates))
    chosen = min(shuffled, key=lambda item: [asked[key] for key in item.balance])
    asked.update(chosen.balance)
    return chosen


def only_of_their_shape(scene: Scene) -> list[Object]:
    """The objects that their shape alone tells from all others."""
    shapes = Counter(item.shape for item in scene.objects)
    return [item for item in scene.objects if shapes[item.shape] == 1]


def only_of_their_colour(scene: Scene) -> list[Object]:
    """The objects that their colour alone tells from all others."""
    colours = Counter(item.colour for item in scene.objects)
    return [item for item in scene.objects if colours[item.colour] == 1]
