"""Questions before a model sees them: rendered, in batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instructblip.data.sample import MediaRef
from instructblip.data.tables import Table
from instructblip.data.templates import fill
from instructblip.evaluation.predictions import labelled, rows_of

Identity = tuple[tuple[str, str], ...]  # pool and key of a picture or of each frame; of no picture none


@dataclass(frozen=True, slots=True)
class Question:
    """A Sample as the model meets it: its row in the table, the rendered prompt, the picture or frames it is shown."""

    row: int
    uid: str
    prompt: str
    media: tuple[MediaRef, ...]  # empty: the language model alone reads the prompt


def identity(question: Question) -> Identity:
    return tuple((ref.pool, ref.key) for ref in question.media)


def render(table: Table, prompt: str, limit: int | None) -> list[Question]:
    """The first `limit` Samples with their prompts. Raises ValueError when some have a label and others none."""
    samples = [(row, table.sample(row)) for row in rows_of(len(table), limit)]
    labelled([sample for _, sample in samples])
    return [Question(row, sample.uid, fill(prompt, sample), sample.shown) for row, sample in samples]


def by_length(questions: Sequence[Question], batch_size: int) -> list[list[Question]]:
    """Batches of like length, the longest first, so that what does not fit into memory fails at once.

    A pure function of the uids, their prompts and the batch size.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: a batch holds one question at least")
    ordered = sorted(questions, key=lambda question: (-len(question.prompt), question.uid))
    return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]
