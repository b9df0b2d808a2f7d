"""The file between predicting and scoring: one line a Sample, batch after batch, each line complete in itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instructblip.data.sample import Sample


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a prediction depends on; every line carries it, and a file made under others is never continued."""

    recipe: str
    profile: str  # of the prompts, or the id of a template
    variant: str | None
    protocol: str  # hash
    mode: str
    decoding: dict[str, Any]  # as given to `generate`; empty when candidates are ranked
    checkpoint: str
    manifest: str  # sha256 of the prepared table
    images: str
    batch_size: int  # padding changes the last bits of a prediction
    limit: int | None = None
    llm_limit: int | None = None  # tokens of a prompt the language model read; None: all


@dataclass(frozen=True, slots=True)
class Prediction:
    """`output` is generated text; `scores` are log-likelihoods, one a candidate or class that was ranked.

    Of a vocabulary of thousands `output` is the best answer, `top` holds the best ones in their order and `truth` the
    Sample's own answers that are in the vocabulary, with their log-likelihoods. `truncated`: the Q-Former or the
    language model read only the end of the prompt.
    """

    uid: str
    prompt: str
    output: str | None = None
    scores: list[float] | None = None
    top: dict[str, float] | None = None
    truth: dict[str, float] | None = None
    truncated: bool = False


REMEDY = "delete the file to predict again"


def rows_of(samples: int, limit: int | None) -> range:
    """Rows of a table that are evaluated: all, or the first `limit`. Raises ValueError when that is none."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: evaluate one Sample at least, or leave it null for all {samples}")
    return range(samples if limit is None else min(limit, samples))


def labelled(samples: Sequence[Sample]) -> bool:
    """Whether the truth is known: of all, or of none. Raises ValueError naming one without among others with it."""
    bare = [sample.uid for sample in samples if not sample.answers and sample.gold is None]
    if bare and len(bare) < len(samples):
        raise ValueError(
            f"{len(bare)} of {len(samples)} Samples have neither answers nor a gold candidate (first {bare[0]})"
        )
    return not bare


def append(path: Path, conditions: Conditions, predictions: Iterable[Prediction]) -> None:
    """Writes one whole batch and syncs it to the disk."""
    with path.open("ab") as file:
        file.write(b"".join(encode(conditions, prediction) for prediction in predictions))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> tuple[Conditions, list[Prediction]]:
    """The predictions and the one set of conditions they share.

    Raises ValueError when there are none, when a line is broken, or when two were made under different conditions.
    """
    lines = whole_lines(path) if path.exists() else []
    if not lines:
        raise ValueError(f"no predictions in {path}; write them with `python evaluate.py ... predict=true`")
    records = [parse(path, number, line) for number, line in enumerate(lines, start=1)]
    conditions = records[0][0]
    for found, _ in records:
        require_same(path, found, conditions)
    return conditions, [prediction for _, prediction in records]


def encode(conditions: Conditions, prediction: Prediction) -> bytes:
    """One line of JSON. What is None is left out."""
    facts = {name: value for name, value in asdict(prediction).items() if value is not None}
    return (json.dumps({**facts, "conditions": asdict(conditions)}, ensure_ascii=False) + "\n").encode()


def whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def parse(path: Path, number: int, line: bytes) -> tuple[Conditions, Prediction]:
    try:
        facts = json.loads(line)
        return Conditions(**facts.pop("conditions")), Prediction(**facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} line {number} is not a prediction ({error}); {REMEDY}") from error


def require_same(path: Path, found: Conditions, wanted: Conditions) -> None:
    before, now = asdict(found), asdict(wanted)
    if before != now:
        changes = [f"{name} {before[name]!r} is now {now[name]!r}" for name in now if before[name] != now[name]]
        raise ValueError(f"{path} was written under other conditions: {', '.join(changes)}; {REMEDY}")
