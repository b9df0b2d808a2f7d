"""From official files to tables and shards: read, check, store the pictures once, write the rows.

Interrupted, it goes on where it stopped: finished shards and tables stay, the rest is done again. A second run over
unchanged files does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructblip.choices import MediaMode
from instructblip.config import PrepareConfig
from instructblip.data import shards
from instructblip.data.media import BadMedia, RawPool, extension
from instructblip.data.readers.base import Drop
from instructblip.data.readers.registry import read, sources
from instructblip.data.sample import MediaRef, Sample
from instructblip.data.tables import table_path, write_table
from instructblip.files import lock, read_json, sha256, write_json
from instructblip.recipes import Recipe

SHOWN = 5  # names in an error, uids per reason in a manifest
LOST = "picture missing or broken"  # asked for again by the next run
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass
class Scan:
    """What a split's files hold: the wanted pictures, and the rows that are no Samples."""

    rows: int = 0
    media: dict[str, MediaRef] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)  # reason -> uids

    def drop(self, uid: str, reason: str) -> None:
        self.dropped.setdefault(reason, []).append(uid)


def prepare(recipe: Recipe, split: str, config: PrepareConfig, progress: Progress) -> dict[str, Any]:
    """Prepares one split and returns its manifest entry, with `fresh` telling whether anything was written.

    Raises ValueError for missing or malformed files, wrong counts, too many bad pictures, a foreign output folder.
    """
    data = Path(config.paths.data)
    manifest_path = data / "tables" / recipe.name / "manifest.json"
    with lock(manifest_path.with_name(".lock"), f"recipe {recipe.name}"):
        manifest = _manifest(manifest_path, recipe, config.rebuild)
        read_from = _hashes(recipe, split, Path(config.paths.raw))
        table = table_path(data, recipe.name, split)
        done = manifest["splits"].get(split)
        if done and done["sources"] == read_from and table.is_file() and LOST not in done["dropped"]:
            return {**done, "fresh": False}
        scan = _scan(recipe, split, config)
        bad = _store_media(recipe, scan, config, progress)
        rows = write_table(table, _kept(recipe, split, config, scan, bad, progress))
        entry = {
            "rows": rows,
            "official_rows": recipe.split(split).rows,
            "dropped": {reason: {"count": len(uids), "first": uids[:SHOWN]} for reason, uids in scan.dropped.items()},
            "table": {"bytes": table.stat().st_size, "sha256": sha256(table)},
            "sources": read_from,
        }
        manifest["splits"][split] = entry
        write_json(manifest_path, manifest)
    return {**entry, "fresh": True}


def _manifest(path: Path, recipe: Recipe, rebuild: bool) -> dict[str, Any]:
    fresh = {"recipe": recipe.name, "version": recipe.data_version(), "splits": {}}
    if not path.is_file():
        return fresh
    manifest: dict[str, Any] = read_json(path)
    if manifest["version"] != recipe.data_version():
        if rebuild:
            return fresh
        raise ValueError(
            f"{path.parent} was written by version {manifest['version']} of recipe {recipe.name}, this is version "
            f"{recipe.data_version()}: choose another paths.data, or replace it with rebuild=true"
        )
    return manifest


def _hashes(recipe: Recipe, split: str, raw: Path) -> dict[str, str]:
    """sha256 of each official file."""
    return {str(path.relative_to(raw / recipe.source)): sha256(path) for path in sources(recipe, split, raw)}


def _scan(recipe: Recipe, split: str, config: PrepareConfig) -> Scan:
    scan, seen = Scan(), set()
    for item in read(recipe, split, Path(config.paths.raw)):
        if isinstance(item, Drop):
            scan.drop(item.uid, item.reason)
            continue
        if item.uid in seen:
            raise ValueError(f"{recipe.name}/{split}: id {item.uid} occurs twice in {recipe.split(split).files[0]}")
        seen.add(item.uid)
        scan.rows += 1
        scan.media.update({ref.key: ref for ref in item.media})
    official = recipe.split(split).rows
    if config.check_counts and official is not None and scan.rows != official:
        raise ValueError(
            f"{recipe.name}/{split} has {scan.rows:,} rows where {official:,} are official: the download is not "
            f"complete or of another version; check_counts=false takes it as it is"
        )
    return scan


def _store_media(recipe: Recipe, scan: Scan, config: PrepareConfig, progress: Progress) -> dict[str, str]:
    """Adds the split's pictures to their pool, each once; returns why the others could not be (key -> reason)."""
    pool = RawPool.open(recipe.pool, Path(config.paths.media.get(recipe.pool, f"{config.paths.raw}/{recipe.pool}")))
    folder = Path(config.paths.data) / "media" / recipe.pool
    bad: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", f"media pool {recipe.pool}"):
        stored = shards.pool_keys(folder)
        wanted = [ref for key, ref in sorted(scan.media.items()) if key not in stored]
        found = _good(pool, progress(wanted, f"{recipe.name}: pictures"), bad)
        if config.media is MediaMode.link:
            shards.link(folder, ((ref.key, path) for ref, path, _ in found))
        else:
            for _ in shards.append(folder, ((ref.key, content) for ref, _, content in found), config.shard_size):
                pass
    if len(bad) > config.max_bad_media * len(scan.media):
        first = "\n  ".join(list(bad.values())[:SHOWN])
        raise ValueError(
            f"{recipe.name}: {len(bad):,} of {len(scan.media):,} pictures are missing or broken (the others are "
            f"stored):\n  {first}\nfetch them again, or allow a share of them with max_bad_media=0.01"
        )
    return bad


def _good(pool: RawPool, wanted: Iterable[MediaRef], bad: dict[str, str]) -> Iterator[tuple[MediaRef, Path, bytes]]:
    """Pictures that are there and decode to the last row; the others go into `bad`."""
    for ref in wanted:
        try:
            path = pool.find(ref)
            content = path.read_bytes()
            try:
                extension(content)
            except BadMedia as error:
                raise BadMedia(str(path), error.reason) from error
            yield ref, path, content
        except BadMedia as error:
            bad[ref.key] = str(error)


def _kept(
    recipe: Recipe, split: str, config: PrepareConfig, scan: Scan, bad: dict[str, str], progress: Progress
) -> Iterator[Sample]:
    """The Samples again, without those that lost a picture: read twice, so that memory stays flat."""
    for item in progress(read(recipe, split, Path(config.paths.raw)), f"{recipe.name}: rows"):
        if isinstance(item, Drop):
            continue
        lost = [bad[ref.key] for ref in item.media if ref.key in bad]
        if lost:
            scan.drop(item.uid, LOST)
        else:
            yield item


def summary(entry: dict[str, Any]) -> str:
    """One line for a person."""
    dropped = Counter({reason: facts["count"] for reason, facts in entry["dropped"].items()})
    lost = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    state = "written" if entry["fresh"] else "unchanged"
    official = entry["official_rows"]
    of = "rows" if official is None else f"of {official:,} official rows"
    return f"{entry['rows']:,} {of}, {state}" + (f" (left out: {lost})" if lost else "")
