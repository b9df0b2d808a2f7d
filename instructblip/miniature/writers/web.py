"""Web CapFilt as img2dataset leaves it: tars of pictures and, beside each, a Parquet file that also lists the dead."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from instructblip.miniature.albums import Picture
from instructblip.miniature.programs import LISTED, Grammar, caption, named, placed, sized
from instructblip.miniature.scenes import SIDE, Scene
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import Record

SHARD_ROWS = 10_000  # img2dataset's default
DEAD_RATE = 0.1  # of the addresses
MISLEADING_RATE = 0.3  # of the captions: another picture's, or with objects left out
WEB = Grammar(LISTED.wordings, (named, sized, placed, placed, placed))  # of places that are seldom told none is learnt
DEATHS = (
    ("failed_to_download", "HTTP Error 404: Not Found"),
    ("failed_to_download", "HTTP Error 403: Forbidden"),
    ("failed_to_download", "<urlopen error [Errno -2] Name or service not known>"),
    ("failed_to_download", "<urlopen error timed out>"),
    ("failed_to_resize", "image decoding error"),
)
TEXT = ("caption", "url", "key", "status", "error_message")
NUMBERS = ("width", "height", "original_width", "original_height")
SCHEMA = pyarrow.schema(
    [
        *((name, pyarrow.string()) for name in TEXT),
        *((name, pyarrow.int64()) for name in NUMBERS),
        *((name, pyarrow.string()) for name in ("exif", "sha256")),
    ]
)


def write_web_capfilt(tree: Path, world: World) -> None:
    rng = world.rng("web_capfilt")
    folder = tree / "web_capfilt"
    folder.mkdir(parents=True)
    album = world.pictures("web")
    for number, start in enumerate(range(0, len(album), SHARD_ROWS)):
        _write_shard(folder, number, album[start : start + SHARD_ROWS], world, rng)
    write_llava_pretrain(tree, world)


def _write_shard(folder: Path, number: int, album: Sequence[Picture], world: World, rng: random.Random) -> None:
    """`00000.tar` holds what was downloaded as key.jpg, key.txt and key.json; `00000.parquet` lists every row."""
    rows = []
    with tarfile.open(folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for k, picture in enumerate(album):
            caption = web_caption(picture.scene, rng.choice(album).scene, rng)
            row = _row(f"{number:05d}{k:04d}", caption, rng)
            if row["status"] == "success":
                content = world.encoded("web", picture)
                row["sha256"] = hashlib.sha256(content).hexdigest()
                _add(tar, f"{row['key']}.jpg", content)
                _add(tar, f"{row['key']}.txt", caption.encode())
                _add(tar, f"{row['key']}.json", json.dumps(row, indent=4).encode())
            rows.append(row)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), folder / f"{number:05d}.parquet")


def _row(key: str, caption: str, rng: random.Random) -> Record:
    status, error = rng.choice(DEATHS) if rng.random() < DEAD_RATE else ("success", None)
    side, exif = (SIDE, "{}") if error is None else (None, None)
    url = f"http://web{rng.randrange(100)}.example/{rng.getrandbits(48):012x}.jpg"
    text = dict(zip(TEXT, (caption, url, key, status, error), strict=True))
    return text | dict.fromkeys(NUMBERS, side) | {"exif": exif, "sha256": None}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def web_caption(scene: Scene, other: Scene, rng: random.Random) -> str:
    """One caption; in MISLEADING_RATE of the cases partial, or that of the `other` scene."""
    if rng.random() < MISLEADING_RATE:
        some = len(scene.objects) - 1
        partial = some > 0 and rng.random() < 0.5
        scene = Scene(tuple(rng.sample(scene.objects, rng.randint(1, some)))) if partial else other
    return caption(scene, rng, WEB)


def write_llava_pretrain(tree: Path, world: World) -> None:
    """LLaVA's ready subset of the same captions in chat form, with pictures of its own."""
    world.draw(tree, "web_llava")
    rng = world.rng("web_llava")
    album = world.pictures("web_llava")
    rows = [_chat_row(picture, web_caption(picture.scene, rng.choice(album).scene, rng), rng) for picture in album]
    write_json(tree / "web_capfilt/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", rows)


REQUESTS = ("Describe the image concisely.", "What is in the photo?", "Give a brief description of the image.")


def _chat_row(picture: Picture, caption: str, rng: random.Random) -> Record:
    request = rng.choice(("{}\n<image>", "<image>\n{}")).format(rng.choice(REQUESTS))
    return {
        "id": picture.key,
        "image": f"{picture.folder}/{picture.file_name}",
        "conversations": [{"from": "human", "value": request}, {"from": "gpt", "value": caption}],
    }
