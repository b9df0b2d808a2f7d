"""Rows with several questions about one text: what is read and what is to be said, as ids of the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

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


def with_sentinels(prompt: list[int], turns: Turns, marks: Sequence[int], tail: int) -> tuple[list[int], list[int]]:
    """What an encoder reads, all turns at once, and what the decoder writes.

    Where there are several turns, a sentinel stands for each answer, and before it in what is written, as in T5's
    pretraining (arXiv 1910.10683, section 3.1.4). The last `tail` ids of the prompt end what is read.

    Raises ValueError where there are more turns than sentinels in `marks`.
    """
    if len(turns) == 1:
        ((asked, said),) = turns
        return prompt[: len(prompt) - tail] + asked + prompt[len(prompt) - tail :], said
    if len(turns) > len(marks):
        raise ValueError(
            f"a row has {len(turns)} turns and the tokenizer {len(marks)} tokens <extra_id_N>; an encoder-decoder "
            "needs one a turn, or rows of one turn"
        )
    read, labels = prompt[: len(prompt) - tail], []
    for mark, (asked, said) in zip(marks, turns, strict=False):
        read += [*asked, mark]
        labels += [mark, *said]
    return read + prompt[len(prompt) - tail :], labels


def sentinels(vocabulary: Mapping[str, int]) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>` ..., as many as there are."""
    tokens = takewhile(vocabulary.__contains__, (f"<extra_id_{place}>" for place in count()))
    return [vocabulary[token] for token in tokens]
