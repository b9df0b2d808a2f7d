"""Official annotation files to Samples: one function per raw layout, no wording, nothing normalised.

A reader yields every row: a Sample, or a Drop that says why the row is none. Files come in the order of the recipe,
those of a pattern sorted by name, then the optional ones that are there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from instructblip.data.readers import captions, choices, dialogues, own, questions, scene_text, videos, web
from instructblip.data.readers.base import Context, Drop, Reader
from instructblip.data.sample import Sample
from instructblip.names import lookup
from instructblip.recipes import Recipe

READERS: dict[str, Reader] = {
    "aokvqa": questions.aokvqa,
    "coco_captions": captions.coco_captions,
    "flickr30k_tokens": captions.flickr30k_tokens,
    "gqa": questions.gqa,
    "hateful_memes": choices.hateful_memes,
    "iconqa": choices.iconqa,
    "img2dataset": web.img2dataset,
    "ivqa": videos.ivqa,
    "own": own.own,
    "karpathy_captions": captions.karpathy_captions,
    "karpathy_flickr30k": captions.karpathy_flickr30k,
    "llava": dialogues.llava,
    "llava_pretrain": web.llava_pretrain,
    "nocaps": captions.nocaps,
    "ocrvqa": scene_text.ocrvqa,
    "scienceqa": choices.scienceqa,
    "textcaps": captions.textcaps,
    "textvqa": scene_text.textvqa,
    "video_qa": videos.video_qa,
    "visdial": dialogues.visdial,
    "vizwiz": questions.vizwiz,
    "vqa": questions.vqa,
    "vsr": choices.vsr,
    "webdataset": web.webdataset,
}


def read(recipe: Recipe, split: str, raw: Path, files: Sequence[Path] | None = None) -> Iterator[Sample | Drop]:
    """Every row of a split, or of some of the `files` of its pattern.

    Raises ValueError naming a missing file and where it comes from, or what is wrong with a file's rows.
    """
    facts = recipe.split(split)
    files = files or sources(recipe, split, raw)
    reader = lookup(facts.reader, READERS, "reader")
    rows = 0
    try:
        for row in reader(files, Context(recipe.table, split, recipe.pool, recipe.form, tuple(facts.select))):
            rows += 1
            yield row
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, csv.Error) as error:
        raise ValueError(
            f"{recipe.name}/{split}: {files[0]} is not in the layout reader {facts.reader!r} knows "
            f"({type(error).__name__} after {rows:,} rows: {error})"
        ) from error
    except ValueError as error:
        if any(str(file) in str(error) for file in files):
            raise
        raise ValueError(f"{files[0]}, after {rows:,} rows: {error}") from error


def sources(recipe: Recipe, split: str, raw: Path) -> list[Path]:
    """The split's official files. Raises ValueError naming those that are missing and where they come from."""
    facts, folder = recipe.split(split), raw / recipe.source
    found = {name: sorted(folder.glob(name)) for name in facts.files}
    if absent := [str(folder / name) for name, paths in found.items() if not paths]:
        urls = dict.fromkeys(download.url for download in recipe.downloads)
        raise ValueError(
            f"{recipe.name}/{split}: missing {', '.join(absent)}; get it from {' '.join(urls)} "
            f"and put it there, or set paths.raw (check=true lists what is needed)"
        )
    optional = [folder / name for name in facts.optional if (folder / name).is_file()]
    return [path for paths in found.values() for path in paths] + optional
