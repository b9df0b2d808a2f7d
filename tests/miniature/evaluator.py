"""An evaluator of its own: it reads a question, tells the program, and looks the answer up in the scene.

It shares no code with the programs that wrote the question.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from instructblip.miniature.albums import Picture
from instructblip.miniature.scenes import Object

PLACES = {
    (row, column): "center" if (row, column) == (1, 1) else f"{name} {side}"
    for row, name in enumerate(["top", "middle", "bottom"])
    for column, side in enumerate(["left", "center", "right"])
}
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
FACTS: dict[str, list[str] | dict[str, str]] = {  # the answers of the known facts, for each kind of question
    "Which fruit has the color": ["strawberry", "lime", "blueberry", "banana", "plum", "tangerine"],
    "What in nature has the color": ["fire", "grass", "sky", "sun", "lavender", "pumpkin"],
    "What in a house has the shape": {
        "circle": "plate",
        "square": "window",
        "triangle": "roof",
        "star": "medal",
    },
    "What outdoors has the shape": {
        "circle": "wheel",
        "square": "sandbox",
        "triangle": "fir tree",
        "star": "sheriff badge",
    },
}
GENRES = {"circle": "Sports", "square": "Cookbooks", "triangle": "Travel", "star": "Science & Math"}


class Asked(NamedTuple):
    program: str
    answer: str


def place(item: Object) -> str:
    return PLACES[divmod(item.cell, 3)]


def only(found: Sequence[str]) -> str:
    (answer,) = set(found)
    return answer


def seen(picture: Picture) -> list[Object]:
    """What the crop leaves, unless all is blurred."""
    objects = list(picture.scene.objects)
    if picture.look.blur > 5:
        return []
    if picture.look.crop:
        left, top = picture.look.crop
        return [item for item in objects if item.cell % 3 in (left, left + 1) and item.cell // 3 in (top, top + 1)]
    return objects


def said(items: Sequence[Object], **wanted: str | None) -> list[Object]:
    """The items that have every wanted property."""
    return [
        item
        for item in items
        if all(
            value is None or value == (place(item) if name == "place" else getattr(item, name))
            for name, value in wanted.items()
        )
    ]


def _fact(kind: str, picture: Picture, shape: str | None, colour: str | None) -> str:
    answers = FACTS[kind]
    if isinstance(answers, list):
        return answers[COLOURS.index(only([item.colour for item in said(picture.scene.objects, shape=shape)]))]
    return answers[only([item.shape for item in said(picture.scene.objects, colour=colour)])]


def _unanswerable(found: list[str], all_: list[Object]) -> str:
    assert len(all_) == 1, "the question does not say which object is meant"
    return found[0] if found else "unanswerable"


def _about_this(picture: Picture, match: re.Match[str]) -> str:
    if shape := match["shape"]:
        return _unanswerable(
            [item.colour for item in said(seen(picture), shape=shape)], said(picture.scene.objects, shape=shape)
        )
    colour = match["colour"]
    return _unanswerable(
        [item.shape for item in said(seen(picture), colour=colour)], said(picture.scene.objects, colour=colour)
    )


def _title(picture: Picture) -> str:
    above = sorted((item.cell, item.word) for item in picture.scene.objects if item.cell < 3)
    return " ".join(word.capitalize() for _, word in above)


def _words(picture: Picture, **wanted: str | None) -> str:
    return only([item.word for item in said(picture.scene.objects, **wanted)])


SHAPE, COLOUR = r"(?P<shape>circle|square|triangle|star)", r"(?P<colour>red|green|blue|yellow|purple|orange)"
PLACE = r"(?P<place>(?:top|middle|bottom) (?:left|center|right)|center)"
Answer = Callable[[Picture, re.Match[str]], str]
GRAMMAR: list[tuple[str, str, Answer]] = [
    (
        "colour-of",
        rf"What color is the {SHAPE}\?",
        lambda p, m: only([item.colour for item in said(p.scene.objects, shape=m["shape"])]),
    ),
    (
        "what-at",
        rf"What shape is in the {PLACE}\?",
        lambda p, m: only([item.shape for item in said(p.scene.objects, place=m["place"])]),
    ),
    (
        "where",
        rf"Where is the (?:{COLOUR} )?{SHAPE}\?",
        lambda p, m: only([place(i) for i in said(p.scene.objects, shape=m["shape"], colour=m["colour"])]),
    ),
    (
        "exists",
        rf"Is there an? {COLOUR} {SHAPE}\?",
        lambda p, m: "yes" if said(p.scene.objects, shape=m["shape"], colour=m["colour"]) else "no",
    ),
    (
        "known-fact",
        rf"(?P<kind>Wh.* has the (?:color|shape)) of the (?:{SHAPE}|{COLOUR} object)\?",
        lambda p, m: _fact(m["kind"], p, m["shape"], m["colour"]),
    ),
    ("title", r"What is the title of this book\?", lambda p, m: _title(p)),
    (
        "author",
        r"Who (?:wrote|is the author of) this book\?",
        lambda p, m: only([i.word.capitalize() for i in p.scene.objects if i.cell == 7]),
    ),
    (
        "genre",
        r"What (?:is the genre of this book|type of book is this)\?",
        lambda p, m: GENRES[only([item.shape for item in p.scene.objects if item.cell == 4])],
    ),
    (
        "about-genre",
        r"Is this (?:book related to (?P<of>.+)|a (?P<a>.+) book)\?",
        lambda p, m: (
            "Yes" if GENRES[only([i.shape for i in p.scene.objects if i.cell == 4])] in (m["of"], m["a"]) else "No"
        ),
    ),
    (
        "seen-or-unanswerable",
        rf"(?:.*, |.*\. )?what (?:color is this {SHAPE}|is the shape of this {COLOUR} thing)\?.*",
        _about_this,
    ),
    (
        "word-on",
        rf"what word is on the {COLOUR} {SHAPE}\?",
        lambda p, m: _words(p, colour=m["colour"], shape=m["shape"]),
    ),
    ("word-on", rf"what is printed in the {PLACE}\?", lambda p, m: _words(p, place=m["place"])),
    ("word-on", rf"what does the {SHAPE} say\?", lambda p, m: _words(p, shape=m["shape"])),
    ("word-on", rf"what is written on the {COLOUR} object\?", lambda p, m: _words(p, colour=m["colour"])),
]


def evaluate(question: str, picture: Picture) -> Asked:
    """Raises when no program, or more than one, asks so."""
    found = [(name, answer, match) for name, pattern, answer in GRAMMAR if (match := re.fullmatch(pattern, question))]
    ((name, answer, match),) = found
    return Asked(name, answer(picture, match))
