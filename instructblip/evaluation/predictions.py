"""The file between predicting and scoring: one line a Sample, batch after batch, each line complete in itself.

Only whole batches count. Whoever is killed in the middle of one leaves at most a part of a batch and half a line, and
`resume` cuts both off; so the finished file is the same however often its writing was interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instructblip.choices import Images
from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.sample import Sample
from instructblip.evaluation.answers import verbaliser
from instructblip.protocols import Evaluation
from instructblip.recipes import Recipe, fingerprint, plain


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a prediction depends on; every line carries it, and a file made under others is never continued."""

    recipe: str
    profile: str
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

    `truncated`: the Q-Former or the language model read only the end of the prompt.
    """

    uid: str
    prompt: str
    output: str | None = None
    scores: list[float] | None = None
    truncated: bool = False


REMEDY = "delete the file to predict again"


def protocol_hash(protocol: Evaluation, profile: str, sample: Sample) -> str:
    """Hash of all that changes a score: the protocol with the wording of `profile`, and the words ranked.

    The vocabulary is named by the split's Samples, all alike; `sample` is any of them.
    """
    vocab = sample.candidates.vocab if sample.candidates else None
    words = verbaliser(vocab) if vocab else None
    return fingerprint(plain(protocol) | {"prompts": protocol.prompts[profile], "words": words})


def predictions_path(run: Path, recipe: Recipe, sample: Sample, config: EvaluateConfig) -> Path:
    """`RUN/eval/<recipe>/<profile>-<protocol hash>/predictions.jsonl`; controls and parts lie apart."""
    name = f"{config.prompts}-{protocol_hash(recipe.protocol(config.prompts), config.prompts, sample)}"
    if config.images is Images.shuffled:
        name += "-shuffled"
    if config.limit is not None:
        name += f"-first{config.limit}"
    if config.eval_llm_limit is not None:
        name += f"-llm{config.eval_llm_limit}"
    return run / "eval" / recipe.name / name / "predictions.jsonl"


def rows_of(samples: int, limit: int | None) -> range:
    """Rows of a table that are evaluated: all, or the first `limit`. Raises ValueError when that is none."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: evaluate one Sample at least, or leave it null for all {samples}")
    return range(samples if limit is None else min(limit, samples))


def resume(path: Path, conditions: Conditions, batches: Sequence[Sequence[str]]) -> int:
    """Leaves `path` with its whole batches; returns how many of `batches` (of uids) those are.

    Raises ValueError when a line was written under other conditions, or is of another Sample than these.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    lines = _whole_lines(path)
    records = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    for found, _ in records:
        _require_same(path, found, conditions)
    uids = [prediction.uid for _, prediction in records]
    done = kept = 0
    while done < len(batches) and uids[kept : kept + len(batches[done])] == list(batches[done]):
        kept += len(batches[done])
        done += 1
    unfinished = list(batches[done]) if done < len(batches) else []
    if uids[kept:] != unfinished[: len(uids) - kept]:
        raise ValueError(f"{path} line {kept + 1} is not the Sample that comes next; {REMEDY}")
    os.truncate(path, sum(map(len, lines[:kept])))
    return done


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
    lines = _whole_lines(path) if path.exists() else []
    if not lines:
        raise ValueError(f"no predictions in {path}; write them with `python evaluate.py ... predict=true`")
    records = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    conditions = records[0][0]
    for found, _ in records:
        _require_same(path, found, conditions)
    return conditions, [prediction for _, prediction in records]


def encode(conditions: Conditions, prediction: Prediction) -> bytes:
    """One line of JSON. What is None is left out."""
    facts = {name: value for name, value in asdict(prediction).items() if value is not None}
    return (json.dumps({**facts, "conditions": asdict(conditions)}, ensure_ascii=False) + "\n").encode()


def _whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _parse(path: Path, number: int, line: bytes) -> tuple[Conditions, Prediction]:
    try:
        facts = json.loads(line)
        return Conditions(**facts.pop("conditions")), Prediction(**facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} line {number} is not a prediction ({error}); {REMEDY}") from error


def _require_same(path: Path, found: Conditions, wanted: Conditions) -> None:
    before, now = asdict(found), asdict(wanted)
    if before != now:
        changes = [f"{name} {before[name]!r} is now {now[name]!r}" for name in now if before[name] != now[name]]
        raise ValueError(f"{path} was written under other conditions: {', '.join(changes)}; {REMEDY}")
