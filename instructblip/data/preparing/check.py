"""`check=true`: what of the official files is there, what is not, and what a person must do to get it.

Nothing is downloaded, and no file is opened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from instructblip import pools, recipes
from instructblip.choices import Source
from instructblip.config.preparing import PrepareConfig
from instructblip.files import write_json
from instructblip.pools import Access, Download
from instructblip.recipes import Recipe, plain

MEGABYTE = 1_000_000
NOT_MEDIA = {".json", ".jsonl", ".csv", ".tsv", ".txt", ".token", ".zip", ".gz", ".tgz", ".md"}  # may lie there too
COUNTED = 200_000  # files of a picture folder, above which it says "or more"
WIDTH = 100


@dataclass(frozen=True)
class FileState:
    """An official file or pattern: how many files match, their bytes, and where it comes from."""

    name: str
    splits: tuple[str, ...]
    found: int
    bytes: int
    optional: bool
    downloads: tuple[str, ...]  # addresses

    @property
    def missing(self) -> bool:
        return not self.found and not self.optional


@dataclass(frozen=True)
class PoolState:
    """A picture folder; `files` stops counting at COUNTED."""

    name: str
    folder: str
    there: bool
    files: int
    licence: str
    access: Access
    downloads: tuple[Download, ...]


@dataclass(frozen=True)
class Checked:
    """A dataset as it lies on this machine."""

    recipe: str
    view_of: str | None
    licence: str
    access: Access
    folder: str
    files: tuple[FileState, ...]
    downloads: tuple[Download, ...]
    pool: PoolState
    hub: dict[str, str]  # split -> repository
    no_mirror: str | None

    def lacking(self) -> list[str]:
        """Missing files, and the picture folder if it is not there."""
        names = [f"{self.folder}/{file.name}" for file in self.files if file.missing]
        return names if self.pool.there else [*names, self.pool.folder]

    def wanted(self) -> list[Download]:
        """The downloads that hold what is missing here."""
        urls = {url for file in self.files if file.missing for url in file.downloads}
        media = () if self.pool.files else self.pool.downloads
        return [download for download in self.downloads if download.url in urls] + list(media)


def look(chosen: Sequence[Recipe], config: PrepareConfig) -> None:
    """What the program says of files before it reads any: a report with check=true, and of `quick` its sum.

    Raises ValueError naming all that several datasets lack, before the first of them is prepared.
    """
    reports = config.check or config.recipe == "quick"
    prepares = config.source is Source.raw and not (config.check or config.audit or config.join)
    if not reports and not (prepares and len(chosen) > 1):
        return  # a single dataset's reader names what it does not find
    checked = [check(recipe, config, COUNTED if reports else 1) for recipe in chosen]
    if reports:
        report(checked, config)
    lacking = {each.recipe: names for each in checked if (names := each.lacking())}
    if prepares and lacking:
        listed = "\n".join(f"  {name}: {', '.join(names)}" for name, names in lacking.items())
        raise ValueError(
            f"{len(lacking)} of {len(chosen)} datasets lack files, and none was prepared:\n{listed}\n"
            f"check=true says where they come from; or name the datasets that are there"
        )


def check(recipe: Recipe, config: PrepareConfig, counted: int = COUNTED) -> Checked:
    """Looks for the files of the splits that would be prepared, and for the pool's, of which it counts so many."""
    folder = Path(config.paths.raw) / recipe.source
    named: dict[str, tuple[list[str], bool]] = {}
    held_out = recipe.name in config.partition.held_out
    for split in recipes.needed_splits(recipe, config.splits, held_out):
        facts = recipe.split(split)
        for name in [*facts.files, *facts.optional]:
            splits, optional = named.get(name, ([], True))
            named[name] = ([*splits, split], optional and name in facts.optional)
    files = tuple(_file(recipe, folder, name, *facts) for name, facts in named.items())
    urls = {url for file in files for url in file.downloads}
    return Checked(
        recipe=recipe.name,
        view_of=recipe.view_of,
        licence=recipe.licence,
        access=recipe.access,
        folder=str(folder),
        files=files,
        downloads=tuple(download for download in recipe.downloads if download.url in urls),
        pool=_pool(recipe.pool, config, counted),
        hub={split: mirror.repo for split, mirror in recipe.mirrors.items()},
        no_mirror=recipe.no_mirror,
    )


def _file(recipe: Recipe, folder: Path, name: str, splits: list[str], optional: bool) -> FileState:
    found = [path for path in folder.glob(name) if path.exists()]
    holders = [each.url for each in recipe.downloads if name in each.files]
    holders = holders or [each.url for each in recipe.downloads if not each.files]
    size = sum(path.stat().st_size for path in found if path.is_file())
    return FileState(name, tuple(splits), len(found), size, optional, tuple(holders))


def _pool(name: str, config: PrepareConfig, counted: int) -> PoolState:
    facts = pools.load(name)
    folder = config.paths.pool(name)
    files = count_files(folder, counted)
    return PoolState(name, str(folder), folder.is_dir(), files, facts.licence, facts.access, tuple(facts.downloads))


def count_files(folder: Path, most: int) -> int:
    """Pictures, clips and tars below a folder, `most` at most; annotations and archives may lie beside them."""
    count = 0
    for _, _, names in os.walk(folder):
        count += sum(Path(name).suffix.lower() not in NOT_MEDIA for name in names)
        if count >= most:
            return most
    return count


def once(downloads: Iterable[Download]) -> list[Download]:
    """Each address once."""
    return list({download.url: download for download in downloads}.values())


def size(downloads: Sequence[Download]) -> str:
    """Megabytes of the downloads whose size is published, and how many have none."""
    unknown = sum(download.megabytes is None for download in downloads)
    known = sum(download.megabytes or 0.0 for download in downloads)
    parts = [f"{known:,.0f} MB"] if len(downloads) > unknown or not downloads else []
    return " + ".join([*parts, *([f"{unknown} of unknown size"] if unknown else [])])


def report(checked: Sequence[Checked], config: PrepareConfig) -> None:
    """Prints every dataset when asked to check, then the sum: what is to be fetched, size, time, free disk."""
    console = Console(width=WIDTH, highlight=False)
    for each in checked if config.check else []:
        console.print(_dataset(each))
        console.print()
    console.print(_sum(checked, config))
    if config.check_json:
        write_json(Path(config.check_json), summary(checked, config))


def summary(checked: Sequence[Checked], config: PrepareConfig) -> dict[str, Any]:
    """The same for a program: JSON types."""
    wanted = once(download for each in checked for download in each.wanted())
    return {
        "datasets": [plain(each) | {"wanted": plain(each.wanted())} for each in checked],
        "wanted_megabytes": sum(download.megabytes or 0.0 for download in wanted),
        "wanted_of_unknown_size": [download.url for download in wanted if download.megabytes is None],
        "free_megabytes": {name: _free(Path(path)) for name, path in _disks(config).items()},
    }


def _dataset(each: Checked) -> RenderableType:
    head = Text.assemble((each.recipe, "bold"), f"  {each.access.value}, {each.licence}")
    if each.view_of:
        return Text.assemble(head, f"\n  a view of {each.view_of}: it needs what that one needs")
    pool = each.pool
    downloads = once([*each.downloads, *pool.downloads])
    numbers = {download.url: f"[{number}]" for number, download in enumerate(downloads, start=1)}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(overflow="fold", width=62)
    table.add_column(overflow="fold", width=18)
    table.add_column(overflow="fold")
    for file in each.files:
        marks = " ".join(numbers[url] for url in file.downloads if file.missing)
        table.add_row(Text(f"  {file.name}"), _state(file), Text(f"from {marks}" if marks else ""))
    marks = " ".join(numbers[download.url] for download in pool.downloads if not pool.files)
    facts = f"  {pool.folder}  (pool {pool.name}: {pool.access.value}, {pool.licence})"
    table.add_row(Text(facts), _pool_state(pool), Text(f"from {marks}" if marks else ""))
    lines = [Text("  " + line) for line in _hub(each)]
    lines += [line for download in downloads for line in _download(download, numbers[download.url])]
    return Group(head, Text(f"  in {each.folder}", style="dim"), table, *lines)


def _state(file: FileState) -> Text:
    if file.found:
        several = f"{file.found} files, " if file.found > 1 else ""
        return Text(f"{several}{file.bytes / MEGABYTE:,.1f} MB", style="green")
    return Text("absent, optional") if file.optional else Text("missing", style="red")


def _pool_state(pool: PoolState) -> Text:
    if not pool.there:
        return Text("no such folder", style="red")
    more = " or more" if pool.files == COUNTED else ""
    return Text(f"{pool.files:,}{more} files", style="green" if pool.files else "red")


def _hub(each: Checked) -> Iterator[str]:
    if each.hub:
        yield "source=hub: " + ", ".join(f"{split} from {repo}" for split, repo in each.hub.items())
    if each.no_mirror:
        yield f"source=hub: not for every split, {each.no_mirror}" if each.hub else f"no source=hub: {each.no_mirror}"


def _download(download: Download, number: str) -> Iterator[Text]:
    table = f"{download.megabytes:,.0f} MB" if download.megabytes is not None else "size unknown"
    yield Text(f"  {number} {download.url} ({table})", overflow="fold", no_wrap=False)
    if download.step:
        yield Text(f"      by hand: {download.step}", style="yellow")


def _sum(checked: Sequence[Checked], config: PrepareConfig) -> RenderableType:
    wanted = once(download for each in checked for download in each.wanted())
    everything = once(download for each in checked for download in (*each.downloads, *each.pool.downloads))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_row("datasets", Text(", ".join(each.recipe for each in checked)))
    table.add_row("all downloads, each once", f"{size(everything)} in {len(everything)} addresses")
    table.add_row("still to fetch", f"{size(wanted)} in {len(wanted)} addresses, {duration(wanted, config)}")
    if steps := [download.step for download in wanted if download.step]:
        table.add_row("by hand", f"{len(steps)} of them need a person first")
    known = sum(download.megabytes or 0.0 for download in wanted)
    for name, path in _disks(config).items():
        free = _free(Path(path))
        table.add_row(Text(f"free at {name}={path}"), Text(f"{free:,.0f} MB", style="red" if free < known else ""))
    note = "Archives, the pictures unpacked from them and the shards of media=copy take about that much each."
    return Group(table, Text(note, style="dim")) if wanted else table


def duration(downloads: Sequence[Download], config: PrepareConfig) -> str:
    """Time to fetch what has a known size, at the config's rate."""
    known = [download.megabytes for download in downloads if download.megabytes is not None]
    minutes = sum(known) / config.download_rate / 60
    unknown = len(downloads) - len(known)
    rate = f"at {config.download_rate:g} MB/s" + (f", not counting the {unknown} of unknown size" if unknown else "")
    return f"{minutes:,.0f} min {rate}" if minutes < 180 else f"{minutes / 60:,.0f} h {rate}"


def _disks(config: PrepareConfig) -> dict[str, str]:
    return {"paths.raw": config.paths.raw, "paths.data": config.paths.data}


def _free(path: Path) -> float:
    """Free megabytes where `path` is or would be."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free / MEGABYTE
