"""Which official files hold what is scored, and whether a training split reads one of them, under whatever name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from posixpath import normpath

from instructblip import recipes
from instructblip.data.tables import table_path
from instructblip.files import read_json
from instructblip.recipes import Recipe, Split


@dataclass(frozen=True)
class EvaluatedFile:
    """`path` under paths.raw holds the split `name` (recipe/split), or a part of it does, that which `select` names."""

    name: str
    path: str
    select: frozenset[str]  # empty: all of the file is scored

    def is_read_by(self, paths: Iterable[str], select: Sequence[str]) -> bool:
        """Whether a split of these files, or patterns, takes rows that are scored."""
        disjoint = bool(self.select and select) and self.select.isdisjoint(select)
        return not disjoint and any(fnmatchcase(self.path, path) for path in paths)


def evaluated_files(recipe: Recipe) -> list[EvaluatedFile]:
    """The files of the recipe's evaluated splits, without those that its other splits read alike (a mapping)."""
    evaluated = recipe.evaluated()
    others = [split for name, split in recipe.splits.items() if name not in evaluated]
    return [
        EvaluatedFile(f"{recipe.name}/{name}", path, frozenset(recipe.splits[name].select))
        for name in evaluated
        for path in _paths(recipe, recipe.splits[name])
        if not any(path in _paths(recipe, other) and other.select == recipe.splits[name].select for other in others)
    ]


def read_by_name(recipe: Recipe, split: str) -> list[str]:
    """Evaluated splits (recipe/split) whose official files the split names: of all recipes here and of its own."""
    facts = recipe.split(split)
    paths = _paths(recipe, facts)
    found = [file.name for file in _known(recipe) if file.is_read_by(paths, facts.select)]
    return list(dict.fromkeys(found))


def read_by_content(recipe: Recipe, split: str, data: Path) -> list[str]:
    """Evaluated splits prepared in `data` from a file that this one was prepared from too, whatever its name."""
    facts, own = recipe.split(split), set(_sources(data, recipe.table, split).values())
    found = []
    for file in _known(recipe):
        name, evaluated = file.name.split("/")
        source = recipes.load(name).source if name in recipes.names() else recipe.source
        hashes = {normpath(f"{source}/{path}"): digest for path, digest in _sources(data, name, evaluated).items()}
        copied = [path for path, digest in hashes.items() if digest in own and fnmatchcase(path, file.path)]
        if copied and file.is_read_by([file.path], facts.select):
            found.append(file.name)
    return list(dict.fromkeys(found))


def _known(recipe: Recipe) -> list[EvaluatedFile]:
    return [*_of_this_project(), *([] if recipe.name in recipes.names() else evaluated_files(recipe))]


@cache
def _of_this_project() -> tuple[EvaluatedFile, ...]:
    return tuple(file for name in recipes.names() for file in evaluated_files(recipes.load(name)))


def _paths(recipe: Recipe, split: Split) -> list[str]:
    return [normpath(f"{recipe.source}/{file}") for file in (*split.files, *split.optional)]


def _sources(data: Path, table: str, split: str) -> dict[str, str]:
    """sha256 of the files a prepared split was read from; empty when it is not prepared here."""
    path = table_path(data, table, split).with_name("manifest.json")
    entry = read_json(path)["splits"].get(split, {}) if path.is_file() else {}
    return dict(entry.get("sources") or {})
