"""What a language model knows of colours and shapes and no picture shows: the facts OK-VQA and A-OKVQA ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instructblip.miniature.programs import Question, only_of_their_colour, only_of_their_shape
from instructblip.miniature.scenes import Scene


@dataclass(frozen=True)
class Fact:
    """Of each colour or shape: what has it, and what else has it (some annotators think of that)."""

    question: str
    answers: Mapping[str, tuple[str, str]]

    def alternative(self, answer: str) -> str:
        return next(other for known, other in self.answers.values() if known == answer)


COLOUR_FACTS = (
    Fact(
        "Which fruit has the color of the {shape}?",
        {
            "red": ("a strawberry", "a cherry"),
            "green": ("a lime", "a kiwi"),
            "blue": ("a blueberry", "berries"),
            "yellow": ("a banana", "a lemon"),
            "purple": ("a plum", "a fig"),
            "orange": ("a tangerine", "a mandarin"),
        },
    ),
    Fact(
        "What in nature has the color of the {shape}?",
        {
            "red": ("fire", "blood"),
            "green": ("grass", "a leaf"),
            "blue": ("the sky", "the sea"),
            "yellow": ("the sun", "sand"),
            "purple": ("lavender", "lilac"),
            "orange": ("a pumpkin", "a carrot"),
        },
    ),
)
SHAPE_FACTS = (
    Fact(
        "What in a house has the shape of the {colour} object?",
        {
            "circle": ("a plate", "a clock"),
            "square": ("a window", "a tile"),
            "triangle": ("a roof", "a coat hanger"),
            "star": ("a medal", "a cookie cutter"),
        },
    ),
    Fact(
        "What outdoors has the shape of the {colour} object?",
        {
            "circle": ("a wheel", "the full moon"),
            "square": ("a sandbox", "a chess board"),
            "triangle": ("a fir tree", "a tent"),
            "star": ("a sheriff badge", "a snowflake"),
        },
    ),
)


def known_fact(scene: Scene) -> list[Question]:
    """Asked of what its shape or its colour alone tells from all others; the answer needs the other of the two."""
    of_colour = [
        Question(fact.question.format(shape=item.shape), fact.answers[item.colour][0])
        for item in only_of_their_shape(scene)
        for fact in COLOUR_FACTS
    ]
    of_shape = [
        Question(fact.question.format(colour=item.colour), fact.answers[item.shape][0])
        for item in only_of_their_colour(scene)
        for fact in SHAPE_FACTS
    ]
    return [*of_colour, *of_shape]


def fact_behind(answer: str) -> tuple[Fact, str]:
    """The fact whose answer this is, and the colour or shape it is known of."""
    return next(
        (fact, known)
        for fact in (*COLOUR_FACTS, *SHAPE_FACTS)
        for known, answers in fact.answers.items()
        if answers[0] == answer
    )


def bare(answer: str) -> str:
    """Without its article."""
    return answer.removeprefix("a ").removeprefix("the ")


def sentences() -> list[str]:
    """The same facts as text, for the language model."""
    of_colours = [
        f"{answer} is {colour}."
        for fact in COLOUR_FACTS
        for colour, answers in fact.answers.items()
        for answer in answers
    ]
    of_shapes = [
        f"{answer} has the shape of a {shape}."
        for fact in SHAPE_FACTS
        for shape, answers in fact.answers.items()
        for answer in answers
    ]
    return [*of_colours, *of_shapes]
