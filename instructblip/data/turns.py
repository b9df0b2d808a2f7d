"""Rows with several questions about one text: what is read and what is to be said, as ids of the language model."""

from __future__ import annotations

IGNORE = -100  # the label of a position that is no target, as in transformers
Turns = list[tuple[list[int], list[int]]]  # ids of what is asked and of what is said


def apart(prompt: list[int], turns: Turns) -> tuple[list[int], list[int], list[int]]:
    """Ids, labels, and the turn of each: 0 for the prompt, which all turns read while they do not read one another.

    Else an answer that was given, or a statement that is judged, tells what is asked next, and nothing is learnt of
    the prompt.
    """
    segments = [(prompt, []), *turns]
    read = [id for asked, said in segments for id in asked + said]
    labels = [id for asked, said in segments for id in [IGNORE] * len(asked) + said]
    return read, labels, [turn for turn, (asked, said) in enumerate(segments) for _ in asked + said]
