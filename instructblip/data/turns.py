"""Rows of several turns: what is read and what is to be said, as ids of the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

IGNORE = -100  # the label of a position that is no target, as in transformers
Turns = list[tuple[list[int], list[int]]]  # ids of what is asked and of what is said


def in_turn(prompt: list[int], response: list[int], turns: Turns) -> tuple[list[int], list[int]]:
    """Ids and labels: a causal model is asked one turn after the other."""
    segments = [(prompt, response), *turns]
    read = [id for asked, said in segments for id in asked + said]
    return read, [id for asked, said in segments for id in [IGNORE] * len(asked) + said]


def with_sentinels(
    prompt: list[int], response: list[int], turns: Turns, marks: Sequence[int], tail: int
) -> tuple[list[int], list[int]]:
    """What an encoder reads, all turns at once, and what the decoder writes.

    Where there are several turns, a sentinel stands for each answer, and before it in what is written, as in T5's
    pretraining (arXiv 1910.10683, section 3.1.4). The last `tail` ids of the prompt end what is read.

    Raises ValueError where there are more turns than sentinels in `marks`.
    """
    if not turns:
        return prompt, response
    segments = [(prompt[: len(prompt) - tail], response), *turns]
    if len(segments) > len(marks):
        raise ValueError(
            f"a row has {len(segments)} turns and the tokenizer {len(marks)} tokens <extra_id_N>; an encoder-decoder "
            "needs one a turn, or rows of one turn"
        )
    read, labels = [], []
    for mark, (asked, said) in zip(marks, segments, strict=False):
        read += [*asked, mark]
        labels += [mark, *said]
    return read + prompt[len(prompt) - tail :], labels


def sentinels(vocabulary: Mapping[str, int]) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>` ..., as many as there are."""
    tokens = takewhile(vocabulary.__contains__, (f"<extra_id_{place}>" for place in count()))
    return [vocabulary[token] for token in tokens]
