"""One Arrow table per dataset and split: a row per Sample, memory-mapped, with text lengths beside each row.

The files are ordinary `datasets` tables (`Dataset.from_file` opens them); random access needs no index of ours.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, List, Value
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample, question_generation
from instructblip.files import read_json, replacing
from instructblip.recipes import Recipe

INTEGERS = NDArray[np.int64]
BATCH_ROWS = 10_000  # together in a file (ours): an opened table reads a header and holds 15 kB of each
TEXT = Value("string")
END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
FEATURES = Features(
    {
        "uid": TEXT,
        "dataset": TEXT,
        "split": TEXT,
        "form": TEXT,
        "media": List({"pool": TEXT, "key": TEXT, "kind": TEXT, "relpath": TEXT, "role": TEXT}),
        "slots": TEXT,  # JSON: a closed key set, but text, lists and pairs among the values
        "answers": List({"text": TEXT, "votes": Value("int32"), "confidence": List(TEXT), "text_alt": TEXT}),
        "candidates": {"items": List(TEXT), "vocab": TEXT, "relevance": List(Value("float32"))},
        "gold": Value("int32"),
        "group": TEXT,
        "meta": TEXT,  # JSON
        "instruction_chars": Value("int32"),  # of the slots; a wording adds about the same to every row
        "response_chars": Value("int32"),  # mean over the annotators' answers
    }
)


class Table:
    """A prepared split. Raises ValueError naming the command that writes it when it is not there, not whole, or empty.

    `asked_as` names the question generation recipe whose view of the table this is; `kept` are the rows it has left.
    """

    def __init__(self, path: Path, asked_as: str | None = None, kept: np.ndarray | None = None) -> None:
        if not path.is_file():
            raise ValueError(f"no table {path}; write it with `python prepare.py recipe={path.parent.name}`")
        self.path, self.asked_as = path, asked_as
        rows = _opened(path)
        self._rows = rows if kept is None else rows.select(kept)
        self._chars = self._rows.select_columns(["instruction_chars", "response_chars"]).with_format("arrow")
        if not len(self._rows):
            raise ValueError(f"{path} has no rows; its manifest.json says what was dropped and why")

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, row: int) -> Sample:
        try:
            sample = from_row(self._rows[row])
        except (ValueError, TypeError, KeyError, pa.ArrowException) as error:
            raise ValueError(f"row {row} of {_again(self.path, f'is damaged ({error})')}") from error
        return question_generation(sample, self.asked_as) if self.asked_as else sample

    def shown(self, rows: np.ndarray) -> list[tuple[str, str]]:
        """(pool, key) of every picture that the given rows show, without reading the text."""
        picked = self._rows.select_columns(["media"])[rows.tolist()]["media"]
        return [(ref["pool"], ref["key"]) for refs in picked for ref in refs if ref["role"] == "main"]

    @property
    def split(self) -> str:
        return self.path.stem

    @classmethod
    def of(cls, data: Path, recipe: Recipe, split: str, kept: np.ndarray | None = None) -> Table:
        """The table a recipe reads, which for a view is its parent's."""
        return cls(table_path(data, recipe.table, split), recipe.name if recipe.view_of else None, kept)

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows by the first picture they show: their order (n,), and where each picture's begin (pictures + 1,)."""
        media = self._rows.with_format("arrow").select_columns(["media"])[:]["media"].combine_chunks()
        keys = pc.struct_field(pc.list_element(media, 0), "key").dictionary_encode()
        codes = keys.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        return order, np.searchsorted(codes[order], np.arange(len(keys.dictionary) + 1))

    def references(self) -> tuple[INTEGERS, pa.Array]:
        """Of every picture that is shown: its row (n,), in order, and its `pool/key`."""
        media = self._rows.with_format("arrow").select_columns(["media"])[:]["media"].combine_chunks()
        pool, key = (pc.struct_field(pc.list_flatten(media), field) for field in ("pool", "key"))
        return pc.list_parent_indices(media).to_numpy(), pc.binary_join_element_wise(pool, key, "/")

    def names(self) -> set[str]:
        """`pool/key` of every picture that is shown."""
        return set(pc.unique(self.references()[1]).to_pylist())

    def showing(self, names: Collection[str]) -> NDArray[np.bool_]:
        """(rows,) whether a row shows one of the pictures, given as `pool/key`."""
        owner, shown = self.references()
        found = np.zeros(len(self), dtype=np.bool_)
        found[owner[pc.is_in(shown, value_set=pa.array(sorted(names))).to_numpy(zero_copy_only=False)]] = True
        return found

    def answers(self) -> dict[str, int]:
        """How many annotators gave each answer."""
        column = self._rows.with_format("arrow").select_columns(["answers"])[:]["answers"].combine_chunks()
        given = pc.list_flatten(column)
        names = ("text", "votes")
        counted = pa.table([pc.struct_field(given, name) for name in names], names=names).group_by("text")
        return dict(zip(*counted.aggregate([("votes", "sum")]).to_pydict().values(), strict=True))

    def chars(self, rows: np.ndarray) -> np.ndarray:
        """(n, 2) characters of instruction and response for the given rows, without reading the text."""
        picked = self._chars[rows.tolist()]
        return np.stack([picked["instruction_chars"].to_numpy(), picked["response_chars"].to_numpy()], axis=1)


def table_path(data: Path, recipe: str, split: str) -> Path:
    return data / "tables" / recipe / f"{split}.arrow"


def manifest_hash(data: Path, recipe: str, split: str) -> str:
    """The sha256 of a prepared table: what a lineage or a score names."""
    entry = read_json(data / "tables" / recipe / "manifest.json")["splits"][split]
    return str(entry["table"]["sha256"])


def _opened(path: Path) -> datasets.Dataset:
    """The memory-mapped rows. Raises ValueError for a file that is cut, or another one than was written here.

    A stream of Arrow batches that ends between two of them reads as a shorter one, so its end and size are checked.
    """
    size, manifest = path.stat().st_size, path.with_name("manifest.json")
    entry = read_json(manifest)["splits"].get(path.stem) if manifest.is_file() else None
    written = entry["table"].get("bytes", size) if entry else size
    if size != written:
        raise ValueError(_again(path, f"has {size:,} bytes where its manifest.json says {written:,}"))
    with path.open("rb") as file:
        file.seek(max(0, size - len(END)))
        if file.read() != END:
            raise ValueError(_again(path, "is not a table, or is cut short"))
    try:
        rows = datasets.Dataset.from_file(str(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(_again(path, f"is not a table ({error})")) from error
    if rows.features != FEATURES:
        raise ValueError(_again(path, f"is a table of other columns: {', '.join(rows.features)}"))
    return rows


def _again(path: Path, wrong: str) -> str:
    return f"{path} {wrong}; delete it and prepare it again with `python prepare.py recipe={path.parent.name}`"


def write_table(path: Path, samples: Iterable[Sample]) -> int:
    """Writes the table whole or not at all; returns its number of rows."""
    return write_rows(path, map(to_row, samples))


def write_rows(path: Path, content: Iterable[dict[str, Any]]) -> int:
    """`write_table` for what `to_row` gave."""
    with replacing(path) as temporary:
        writer = ArrowWriter(path=str(temporary), features=FEATURES, writer_batch_size=BATCH_ROWS)
        for row in content:
            writer.write(row)
        rows, _ = writer.finalize()
        writer.close()
    return int(rows)


def to_row(sample: Sample) -> dict[str, Any]:
    candidates = sample.candidates or Candidates(vocab="")
    return {
        "uid": sample.uid,
        "dataset": sample.dataset,
        "split": sample.split,
        "form": sample.form.value,
        "media": [{name: getattr(ref, name) for name in ref.__slots__} for ref in sample.media],
        "slots": json.dumps(dict(sample.slots), ensure_ascii=False),
        "answers": [{name: getattr(answer, name) for name in answer.__slots__} for answer in sample.answers],
        "candidates": {name: getattr(candidates, name) for name in candidates.__slots__},
        "gold": sample.gold,
        "group": sample.group,
        "meta": json.dumps(dict(sample.meta), ensure_ascii=False),
        "instruction_chars": sum(len(str(value)) for value in sample.slots.values()),
        "response_chars": _mean_chars(sample.answers),
    }


def from_row(row: dict[str, Any]) -> Sample:
    candidates = row["candidates"]
    return Sample(
        uid=row["uid"],
        dataset=row["dataset"],
        split=row["split"],
        form=Form(row["form"]),
        media=tuple(MediaRef(**ref) for ref in row["media"]),
        slots={name: _frozen(value) for name, value in json.loads(row["slots"]).items()},
        answers=tuple(Answer(**{**answer, "confidence": tuple(answer["confidence"])}) for answer in row["answers"]),
        candidates=None
        if candidates["vocab"] == ""
        else Candidates(tuple(candidates["items"]), candidates["vocab"], tuple(candidates["relevance"])),
        gold=row["gold"],
        group=row["group"],
        meta=json.loads(row["meta"]),
    )


def _mean_chars(answers: tuple[Answer, ...]) -> int:
    total = sum(answer.votes for answer in answers)
    return round(sum(len(answer.text) * answer.votes for answer in answers) / total) if total else 0


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
