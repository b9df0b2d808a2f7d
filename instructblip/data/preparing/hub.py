"""Mirrors on the Hugging Face hub in place of official files: `source=hub` streams a split's rows and pictures.

Nothing is kept but what prepare.py writes, so that no second copy of the pictures lies in a cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi, hf_hub_download

from instructblip.config.data import PathsConfig
from instructblip.data.readers.base import Context, Drop
from instructblip.data.readers.mirrors import MIRRORS, PICTURES, Entry, Layout, Pictures, Row
from instructblip.data.readers.registry import READERS
from instructblip.data.sample import Sample
from instructblip.names import lookup
from instructblip.recipes import Mirror, Recipe, fingerprint

OFFICIAL = "official"  # a mirror's reader: the repository holds the official file itself
COMMIT = re.compile(r"[0-9a-f]{40}")


def mirror_of(recipe: Recipe, split: str) -> Mirror:
    """The split's mirror. Raises ValueError saying why there is none."""
    recipe.split(split)
    if split in recipe.mirrors:
        return recipe.mirrors[split]
    others = f" (it has {', '.join(recipe.mirrors)})" if recipe.mirrors else ""
    reason = recipe.no_mirror or "no faithful mirror is known"
    raise ValueError(f"{recipe.name}/{split} cannot be read from the hub{others}: {reason}. Use source=raw")


def version(mirror: Mirror, hub: str | None) -> str:
    """What is read: the commit on the hub, or a hash of names, sizes and times of a local copy.

    Raises ValueError when the hub cannot be asked.
    """
    if hub:
        folder = _local(mirror, hub)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
        return fingerprint([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    if mirror.revision and COMMIT.fullmatch(mirror.revision):
        return mirror.revision
    with _reaching(mirror):
        return str(HfApi().dataset_info(mirror.repo, revision=mirror.revision).sha)


def entries(recipe: Recipe, split: str, paths: PathsConfig, revision: str | None = None) -> Iterator[Entry]:
    """Every Sample or Drop of a split with the pictures its row brings (media key -> file content), in one pass.

    Raises ValueError for a split without a faithful mirror, a mirror that lost a column, a row in another layout.
    """
    mirror = mirror_of(recipe, split)
    facts = recipe.split(split)
    context = Context(recipe.table, split, recipe.pool, recipe.form, tuple(facts.select))
    where = f"{recipe.name}/{split}: {mirror.repo}"
    try:
        if mirror.reader == OFFICIAL:
            for item in lookup(facts.reader, READERS, "reader")([_file(mirror, paths.hub, revision)], context):
                yield item, {}
            return
        layout = lookup(mirror.reader, MIRRORS, "mirror reader")
        pictures = _pictures(mirror, paths.hub, revision, where)
        rows = _rows(mirror, mirror.config, layout, paths.hub, revision, where)
        for item, brought in layout.read(rows, context, _beside(recipe, mirror, Path(paths.raw))):
            yield item, brought or _of(item, pictures)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{where} is not in the layout reader {mirror.reader!r} knows ({type(error).__name__}: {error}); "
            f"mirrors change: pin its revision in the recipe, or use source=raw"
        ) from error


def _rows(
    mirror: Mirror, config: str | None, layout: Layout, hub: str | None, revision: str | None, where: str
) -> Iterator[Row]:
    """The columns of a config's rows that a layout takes, pictures as the bytes of their files."""
    place = str(_local(mirror, hub)) if hub else mirror.repo
    files = {mirror.split: mirror.files} if mirror.files else None
    options: dict[str, Any] = {} if hub else {"revision": revision or mirror.revision}
    with _reaching(mirror):
        rows = datasets.load_dataset(place, config, data_files=files, split=mirror.split, streaming=True, **options)
        names = rows.column_names or list(next(iter(rows.take(1)), {}))
    if missing := [name for name in layout.columns if name not in names]:
        raise ValueError(
            f"{where} has no column {', '.join(missing)}, which reader {mirror.reader!r} needs (it has "
            f"{', '.join(sorted(names))}): pin an older revision in the recipe, or use source=raw"
        )
    rows = rows.select_columns([*layout.columns, *(name for name in layout.optional if name in names)])
    yield from rows.decode(False) if rows.features else rows


def _pictures(mirror: Mirror, hub: str | None, revision: str | None, where: str) -> Pictures:
    """Pictures that lie in a config of their own, all in memory: GQA's test-dev has 398."""
    if mirror.pictures is None:
        return {}
    rows = _rows(mirror, mirror.pictures, PICTURES, hub, revision, where)
    return {str(row["id"]): row["image"]["bytes"] for row in rows}


def _of(item: Sample | Drop, pictures: Pictures) -> Pictures:
    if isinstance(item, Drop):
        return {}
    return {ref.key: pictures[ref.key] for ref in item.media if ref.key in pictures}


def _beside(recipe: Recipe, mirror: Mirror, raw: Path) -> list[Path]:
    """The official files a mirror cannot do without. Raises ValueError naming one that is missing."""
    files = [raw / recipe.source / name for name in mirror.beside]
    if absent := [str(path) for path in files if not path.is_file()]:
        urls = [download.url for download in recipe.downloads if set(download.files) & set(mirror.beside)]
        raise ValueError(f"{mirror.repo} lacks what {', '.join(absent)} holds; get it from {' '.join(urls)}")
    return files


def _file(mirror: Mirror, hub: str | None, revision: str | None) -> Path:
    """The official file the repository holds."""
    assert mirror.files is not None
    if hub:
        return _local(mirror, hub) / mirror.files
    with _reaching(mirror):
        return Path(hf_hub_download(mirror.repo, mirror.files, repo_type="dataset", revision=revision))


@contextmanager
def _reaching(mirror: Mirror) -> Iterator[None]:
    """Turns what the client libraries raise into one error with the repository's name and a remedy."""
    try:
        yield
    except (OSError, ValueError) as error:  # connection, absent repository or file, unknown config or split
        raise ValueError(
            f"{mirror.repo}, config {mirror.config}, split {mirror.split} cannot be read "
            f"({str(error).splitlines()[0]}); without a network, paths.hub=DIR reads a local copy"
        ) from error


def _local(mirror: Mirror, hub: str) -> Path:
    """`<hub>/<owner>/<name>`. Raises ValueError with the command that makes it."""
    folder = Path(hub) / mirror.repo
    wanted = folder / mirror.files if mirror.files else folder
    if not wanted.exists():
        raise ValueError(
            f"no copy of {mirror.repo} in {wanted}: `hf download {mirror.repo} --repo-type dataset --local-dir "
            f"{folder}` makes one, paths.hub=null reads the hub itself"
        )
    return folder
