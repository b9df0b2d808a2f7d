"""Readers of dialogues: one Sample a turn, with the turns before it as its own history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from instructblip.data.readers.base import Context, Drop, coco, image_id
from instructblip.data.readers.captions import UNLABELLED
from instructblip.data.sample import Candidates, MediaRef, Sample, votes
from instructblip.files import read_json

MARKER = "<image>"
Turns = tuple[tuple[str, str], ...]


def llava(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """LLaVA-Instruct-150K: records of human and gpt in turn. `select: [first]` takes the first turn of each.

    A record's `id` is its picture's and occurs more than once, so the row number is its own.
    """
    for number, record in enumerate(read_json(files[0])):
        turns = _turns(record["conversations"])
        if not turns:
            yield Drop(context.uid(number), "turns are not human and gpt in turn")
        picture = coco(context, image_id(record["image"]), record["image"])
        for turn, (asked, said) in enumerate(turns[:1] if "first" in context.select else turns):
            if not asked or not said:
                yield Drop(context.uid(f"{number}#{turn}"), "empty turn")
                continue
            slots = {"instruction": asked, "history": turns[:turn]}
            yield context.sample(f"{number}#{turn}", picture, slots=slots, answers=votes([said]), group=str(number))


def visdial(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Visual Dialog 1.0: rounds whose questions, answers and options are places in two tables of strings.

    An optional second file has the graded relevance of one round's options. `select: [last]` takes each dialogue's
    last round, `[unlabelled]` the rounds that have options, which in the test set are the last ones.
    """
    source = read_json(files[0])["data"]
    questions, answers = source["questions"], source["answers"]
    dense = {(row["image_id"], row["round_id"]): row["gt_relevance"] for path in files[1:] for row in read_json(path)}
    for dialog in source["dialogs"]:
        history: Turns = ()
        rounds = dialog["dialog"]
        for number, turn in enumerate(rounds, start=1):  # as `round_id` counts
            relevance = dense.pop((dialog["image_id"], number), [])
            asked = _at(turn["question"], questions)
            if _wanted(turn, number == len(rounds), context):
                slots = {"question": asked, "caption": dialog["caption"], "history": history}
                yield _round(dialog["image_id"], number, slots, turn, answers, relevance, context)
            if "answer" in turn:
                history = (*history, (asked, _at(turn["answer"], answers)))
    for key, number in dense:
        yield Drop(context.uid(f"{key}#{number:02d}"), "relevance of a round that is not there")


def _turns(said: list[dict[str, str]]) -> Turns:
    """Instructions and replies; empty when they do not alternate. The picture's place is marked in the first."""
    if len(said) % 2 or any(turn["from"] != ("human", "gpt")[place % 2] for place, turn in enumerate(said)):
        return ()
    texts = [turn["value"] for turn in said]
    if texts and MARKER in texts[0]:  # on a line of its own, before or behind
        texts[0] = " ".join(part.strip() for part in texts[0].split(MARKER) if part.strip())
    return tuple(zip(texts[::2], texts[1::2], strict=True))


def _wanted(turn: dict[str, Any], last: bool, context: Context) -> bool:
    if UNLABELLED in context.select:
        return "answer_options" in turn
    return last or "last" not in context.select


def _round(
    key: int, number: int, slots: dict[str, Any], turn: dict[str, Any], table: list[str], relevance: list[float],
    context: Context,
) -> Sample | Drop:  # fmt: skip
    source_id = f"{key}#{number:02d}"
    items = tuple(_at(place, table) for place in turn["answer_options"])
    if relevance and len(relevance) != len(items):
        raise ValueError(f"{context.uid(source_id)} has {len(items)} options, but the relevance of {len(relevance)}")
    fields: dict[str, Any] = {}
    if UNLABELLED not in context.select:
        said = _at(turn["answer"], table)
        if _at(turn["gt_index"], items) != said:
            return Drop(context.uid(source_id), "the option at gt_index is not the answer")
        fields = {"answers": votes([said]), "gold": turn["gt_index"]}
    return context.sample(
        source_id,
        MediaRef(context.pool, str(key)),
        slots=slots,
        candidates=Candidates(items, relevance=tuple(relevance)),
        group=str(key),
        meta={"round": number},
        **fields,
    )


def _at(place: int, table: Sequence[str]) -> str:
    """Raises IndexError below 0 as well, where Python counts from the end."""
    if place < 0:
        raise IndexError(f"place {place} of a table of {len(table):,}")
    return table[place]
