"""The border where a dataset ends: one `Sample` per question, caption set, statement or turn.

Everything a template, a metric or an audit may ask for stands here as the source wrote it: raw text, votes and
not metric weights, media named by pool and key so that overlap between datasets can be computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

TURNS = frozenset({"history", "following"})  # slots of pairs: asked and said before; asked besides, each by itself
SCENES = "scenes.jsonl"  # of an embedded world, in words: one {"pool": ..., "key": ..., "text": ...} a line
SLOTS = TURNS | {"question", "statement", "caption", "context", "ocr", "instruction", "answer"}


class Form(Enum):
    """How a Sample's target and candidates are to be used."""

    caption = "caption"
    vqa = "vqa"
    multiple_choice = "multiple_choice"
    vqg = "vqg"
    instruct = "instruct"
    rank = "rank"
    classify = "classify"


@dataclass(frozen=True, slots=True)
class MediaRef:
    """One picture or clip: `(pool, key)` is its identity everywhere, `relpath` only helps to find the source file."""

    pool: str  # "coco", "gqa", ...
    key: str  # identity within the pool; COCO: the integer id as text, never a file name
    kind: str = "image"  # or "video"
    relpath: str | None = None  # under the pool's raw folder, as the source names it
    role: str = "main"  # "choice:0" for picture options


@dataclass(frozen=True, slots=True)
class Answer:
    """A string some annotators gave, and how many of them gave exactly this string."""

    text: str
    votes: int = 1
    confidence: tuple[str, ...] = ()  # one per vote where the source has it: yes, maybe, no
    text_alt: str | None = None  # a second official form (OKVQA's stemmed one)


@dataclass(frozen=True, slots=True)
class Candidates:
    """A closed answer set: inline `items` (order kept, duplicates allowed) or the name of a shared `vocab`."""

    items: tuple[str, ...] = ()
    vocab: str | None = None
    relevance: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.items) == (self.vocab is not None):
            raise ValueError("candidates are either inline items or a vocab name, one of the two")


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a dataset. `gold` indexes `candidates.items`, or the class of a verbaliser vocab.

    `uid` reads dataset/split/source_id[#sub]: unique, stable under re-runs, and sortable.
    """

    uid: str
    dataset: str
    split: str
    form: Form
    media: tuple[MediaRef, ...]
    slots: Mapping[str, Any] = field(default_factory=dict)  # text; ocr: tuple of str; history, following: of (str, str)
    answers: tuple[Answer, ...] = ()
    candidates: Candidates | None = None
    gold: int | None = None
    group: str | None = None  # the image, dialogue or book the item came from
    meta: Mapping[str, Any] = field(default_factory=dict)  # filterable facts, never rendered

    def __post_init__(self) -> None:
        if not self.uid.startswith(f"{self.dataset}/{self.split}/"):
            raise ValueError(f"uid {self.uid!r} does not begin with {self.dataset}/{self.split}/")
        if not self.shown:
            raise ValueError(f"{self.uid}: a Sample needs at least one picture or clip")
        if unknown := set(self.slots) - SLOTS:
            raise ValueError(f"{self.uid}: unknown slots {sorted(unknown)}; a slot is one of {sorted(SLOTS)}")

    @property
    def shown(self) -> tuple[MediaRef, ...]:
        """What the model looks at: the picture, or the frames of a clip in order; picture options are not among it."""
        return tuple(ref for ref in self.media if ref.role == "main")


def question_generation(sample: Sample, dataset: str) -> Sample:
    """The Sample with its roles swapped: what was asked is to be said, given one of the answers."""
    uid = f"{dataset}/{sample.uid.split('/', 1)[1]}"
    return replace(sample, uid=uid, dataset=dataset, form=Form.vqg, candidates=None, gold=None)


def votes(texts: list[str], confidences: list[str] | None = None) -> tuple[Answer, ...]:
    """Distinct strings with their votes, in order of first appearance."""
    given = confidences or [""] * len(texts)
    seen: dict[str, list[str]] = {}
    for text, confidence in zip(texts, given, strict=True):
        seen.setdefault(text, []).append(confidence)
    return tuple(Answer(text, len(marks), tuple(marks) if confidences else ()) for text, marks in seen.items())
