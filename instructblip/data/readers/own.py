"""A user's own data: JSON lines of instruction, response and picture."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from instructblip.data.readers.base import Context, Drop
from instructblip.data.sample import SLOTS, TURNS, Candidates, MediaRef, Sample, votes
from instructblip.files import read_jsonl

KNOWN = {"id", "image", "response", "candidates", "answer"} | SLOTS
KEPT = 60  # characters of a file name that its key keeps, for the eye; the hash makes it unique


def own(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Rows of `image` (relative to the pool's folder), `instruction` or other slots, and what is to be said.

    `response` is a text or a list of them; `candidates` is a closed list, `answer` the right one or its number. `id`
    is the line number where there is none. Other keys are kept as facts. Raises ValueError naming file and line.
    """
    number = 0
    for path in files:
        for row in read_jsonl(path):
            try:
                yield _sample(row, number, context)
            except ValueError as error:
                raise ValueError(f"{path} row {number + 1}: {error}") from error
            number += 1


def media_key(relpath: str) -> str:
    """A picture's key from its path below the pool's folder: readable letters, then 64 bits of the path's hash."""
    path = PurePosixPath(relpath).as_posix()  # ./a.jpg and a.jpg are one file
    letters = re.sub(r"[^A-Za-z0-9]+", "-", path.rsplit(".", 1)[0]).strip("-")[-KEPT:]
    return f"{letters}-{hashlib.sha256(path.encode()).hexdigest()[:16]}".lstrip("-")


def _sample(row: Any, number: int, context: Context) -> Sample | Drop:
    if not isinstance(row, dict):
        raise ValueError("is not an object {...}")
    source_id = row.get("id", number)
    image, asked = row.get("image"), _slots(row)
    if not isinstance(image, str) or not image.strip():
        raise ValueError("has no `image`, the picture's path below the pool's folder")
    if context.form.value not in ("caption", "vqg") and not asked:
        raise ValueError(f"asks nothing: it needs `instruction`, or another of {', '.join(sorted(SLOTS))}")
    candidates, gold = _candidates(row)
    said = row.get("response", [])
    texts = [said] if isinstance(said, str) else list(said)
    if not texts and candidates and gold is not None:
        texts = [candidates.items[gold]]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"`response` is {said!r}, not a text or a list of texts")
    if not texts:
        return Drop(context.uid(source_id), "no response and no answer")
    return context.sample(
        source_id,
        MediaRef(context.pool, media_key(image), relpath=PurePosixPath(image).as_posix()),
        slots=asked,
        answers=votes(texts),
        candidates=candidates,
        gold=gold,
        group=image,
        meta={name: value for name, value in row.items() if name not in KNOWN},
    )


def _slots(row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are slots, frozen; `answer` says which candidate is right and is none."""
    slots = {name: row[name] for name in SLOTS - {"answer"} if row.get(name)}
    if "ocr" in slots:
        slots["ocr"] = tuple(map(str, slots["ocr"]))
    for turns in TURNS & slots.keys():
        slots[turns] = tuple((str(asked), str(said)) for asked, said in slots[turns])
    if "following" in slots and "context" not in slots:
        raise ValueError("has `following` without `context`, the text that it is about")
    if wrong := [name for name in slots if name not in TURNS | {"ocr"} and not isinstance(slots[name], str)]:
        raise ValueError(f"`{wrong[0]}` is {slots[wrong[0]]!r}, not a text")
    return dict(sorted(slots.items()))


def _candidates(row: Mapping[str, Any]) -> tuple[Candidates | None, int | None]:
    """The closed list and the place of the right one in it."""
    items, answer = row.get("candidates"), row.get("answer")
    if items is None:
        if answer is not None:
            raise ValueError("has an `answer` but no `candidates`; what is to be said freely stands in `response`")
        return None, None
    if not isinstance(items, list) or len(items) < 2 or not all(isinstance(item, str) for item in items):
        raise ValueError(f"`candidates` is {items!r}, not a list of two texts or more")
    if answer is None:
        return Candidates(tuple(items)), None
    if isinstance(answer, str) and answer in items:
        return Candidates(tuple(items)), items.index(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(items):
        return Candidates(tuple(items)), answer
    raise ValueError(f"`answer` {answer!r} is neither one of the candidates {items} nor a number below {len(items)}")
