"""Writes the embedded world as raw files, in the official on-disk formats and layouts of the datasets.

Everything is a function of (seed, sizes): the same pair gives the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instructblip.data.sample import SCENES
from instructblip.miniature.albums import Sizes
from instructblip.miniature.scenes import Role
from instructblip.miniature.telling import told
from instructblip.miniature.world import World, write_json, write_lines
from instructblip.miniature.writers import (
    captions,
    choices,
    dialogues,
    knowledge,
    questions,
    reading,
    reasoning,
    videos,
    web,
)

WORLD = 7  # raised whenever a seed gives another tree than before
STAMP = "miniature.json"
DEFAULT = Sizes()


def write(folder: Path, seed: int, sizes: Sizes = DEFAULT, only: Role | None = None) -> None:
    """Writes the raw tree into `folder`, whole or not at all; does nothing where it already stands.

    `only` is the role that all scenes have, whatever their split. Raises ValueError when `folder` holds anything else.
    """
    stamp = {"world": WORLD, "seed": seed, "sizes": asdict(sizes)} | ({"only": only.name} if only else {})
    if folder.exists() and any(folder.iterdir()):
        _require_same(folder, stamp)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        tree = Path(temporary) / folder.name
        _write_tree(tree, World(seed, sizes, only))
        write_json(tree / STAMP, stamp)
        os.replace(tree, folder)


def hand_over(raw: Path, data: Path) -> None:
    """Puts the scenes in words beside the tables that ask about them."""
    data.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(raw / SCENES, data / SCENES)


def _require_same(folder: Path, stamp: dict[str, Any]) -> None:
    file = folder / STAMP
    found = json.loads(file.read_text()) if file.is_file() else "files that are not a miniature"
    if found != stamp:
        raise ValueError(f"{folder} holds {found}, not {stamp}: name another folder (paths.raw) or remove it")


WRITERS: dict[str, Callable[[Path, World], None]] = {  # every dataset but the views, which have no files
    "coco_caption": captions.write_coco_caption,
    "web_capfilt": web.write_web_capfilt,
    "textcaps": reading.write_textcaps,
    "vqav2": questions.write_vqav2,
    "okvqa": knowledge.write_okvqa,
    "aokvqa": knowledge.write_aokvqa,
    "ocrvqa": reading.write_ocrvqa,
    "nocaps": captions.write_nocaps,
    "flickr30k": captions.write_flickr30k,
    "vizwiz": questions.write_vizwiz,
    "textvqa": reading.write_textvqa,
    "vsr": choices.write_vsr,
    "gqa": reasoning.write_gqa,
    "scienceqa": reasoning.write_scienceqa,
    "iconqa": choices.write_iconqa,
    "hateful_memes": choices.write_hateful_memes,
    "visdial": dialogues.write_visdial,
    "llava": dialogues.write_llava,
    "msvd_qa": videos.write_msvd_qa,
    "msrvtt_qa": videos.write_msrvtt_qa,
    "ivqa": videos.write_ivqa,
}


def _write_tree(tree: Path, world: World) -> None:
    for writer in WRITERS.values():
        writer(tree, world)
    write_lines(tree / SCENES, (picture._asdict() for picture in told(world)))
