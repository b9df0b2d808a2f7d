"""A recipe's closed answer lists, which its evaluation protocol may rank: an official file's, or those of splits.

They are written once as JSON beside the recipe's tables, made from raw annotations alone, and read from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.data.readers.registry import read, sources
from instructblip.data.sample import Sample
from instructblip.files import read_json, sha256, write_json
from instructblip.names import lookup
from instructblip.recipes import Recipe, Vocabulary, fingerprint, plain


@dataclass(frozen=True, slots=True)
class AnswerList:
    """A vocabulary's answers in their order, as the source writes them, and their hash."""

    name: str
    answers: tuple[str, ...]
    hash: str


def build(recipe: Recipe, name: str, raw: Path) -> AnswerList:
    """The vocabulary `name` from raw files: an official file in its own index order, else by votes, then alphabet.

    Raises ValueError naming a missing file and where it comes from, or what is wrong with a file.
    """
    facts = lookup(name, recipe.vocabularies, f"vocabulary of {recipe.name}")
    files = _files(recipe, facts, raw)
    answers = _indexed(files[0]) if facts.file else _counted(recipe, facts, raw)
    if not answers:
        raise ValueError(f"vocabulary {name!r} of {recipe.name} is empty: {files[0]} has no answers")
    return AnswerList(name, answers, fingerprint(answers))


def prepare_vocabularies(recipe: Recipe, raw: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Writes every vocabulary whose files are there; one that is written from the same files stays as it is.

    Returns per name `answers` (their number), `hash` and `fresh`, or, for one whose files are not there, `missing`:
    what is missing and where it comes from. Raises ValueError for malformed files.
    """
    return {name: _prepared(recipe, name, raw, data) for name in recipe.vocabularies}


def read_vocabulary(recipe: Recipe, name: str, data: Path) -> AnswerList:
    """A written vocabulary. Raises ValueError saying which files it is made of, and which others are written."""
    facts = lookup(name, recipe.vocabularies, f"vocabulary of {recipe.name}")
    path = vocabulary_path(data, recipe.name, name)
    if not path.is_file():
        needed = [facts.file] if facts.file else [file for split in facts.splits for file in recipe.split(split).files]
        written = ", ".join(sorted(other.stem for other in path.parent.glob("*.json"))) or "none"
        raise ValueError(
            f"no vocabulary {path}; put {', '.join(needed)} into {recipe.source}/ under paths.raw and run "
            f"`python prepare.py recipe={recipe.name}`, or evaluate a variant that ranks another (written: {written})"
        )
    content = read_json(path)
    return AnswerList(name, tuple(content["answers"]), content["hash"])


def vocabulary_path(data: Path, recipe: str, name: str) -> Path:
    return data / "tables" / recipe / "vocabularies" / f"{name}.json"


def coverage(vocabulary: AnswerList, samples: Iterable[Sample]) -> float | None:
    """Share of the Samples with an answer in the vocabulary: no score of ranking it is higher. None without Samples."""
    known = set(vocabulary.answers)
    covered = [any(answer.text in known for answer in sample.answers) for sample in samples]
    return sum(covered) / len(covered) if covered else None


def _prepared(recipe: Recipe, name: str, raw: Path, data: Path) -> dict[str, Any]:
    facts, path = recipe.vocabularies[name], vocabulary_path(data, recipe.name, name)
    try:
        files = _files(recipe, facts, raw)
    except ValueError as missing:
        return {"missing": str(missing)}
    folder = raw / recipe.source
    made_of = {
        "definition": [recipe.data_version(), plain(facts)],
        "sources": {str(file.relative_to(folder)): sha256(file) for file in files},
    }
    known = read_json(path) if path.is_file() else {}
    if fresh := {key: known.get(key) for key in made_of} != made_of:
        built = build(recipe, name, raw)
        known = {"name": name, **made_of, "hash": built.hash, "answers": list(built.answers)}
        write_json(path, known)
    return {"answers": len(known["answers"]), "hash": known["hash"], "fresh": fresh}


def _files(recipe: Recipe, facts: Vocabulary, raw: Path) -> list[Path]:
    """What the vocabulary is made of, no file opened. Raises ValueError naming what is missing."""
    if not facts.file:
        return list(dict.fromkeys(file for split in facts.splits for file in sources(recipe, split, raw)))
    path = raw / recipe.source / facts.file
    if not path.is_file():
        named = [download for download in recipe.downloads if facts.file in download.files]
        places = " ".join(download.url for download in named or recipe.downloads)
        raise ValueError(f"{recipe.name}: missing {path}; get it from {places} and put it there, or set paths.raw")
    return [path]


def _counted(recipe: Recipe, facts: Vocabulary, raw: Path) -> tuple[str, ...]:
    """The splits' answers, those most voted for first, equals by alphabet."""
    counts: Counter[str] = Counter()
    for split in facts.splits:
        for item in read(recipe, split, raw):
            if isinstance(item, Sample):
                counts.update({answer.text: answer.votes for answer in item.answers})
    return tuple(sorted(counts, key=lambda text: (-counts[text], text))[: facts.top])


def _indexed(path: Path) -> tuple[str, ...]:
    """An official file of {answer: index}. Raises ValueError when the indices are not 0 to n-1, each once."""
    indices = read_json(path)
    if not isinstance(indices, dict) or set(map(repr, indices.values())) != set(map(repr, range(len(indices)))):
        raise ValueError(f"{path} does not number its answers from 0 on, each once: download it again")
    return tuple(sorted(indices, key=indices.__getitem__))
