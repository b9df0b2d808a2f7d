"""Memory and speed of preparing: `python experiments/benchmarks/prepare.py [--rows 100000 1000000]`.

Memory: rows with a key each, over 50 tiny JPEGs in a tar; the peak resident memory of the one process that does all.
Speed: 2,000 keys over 50 JPEGs of 640x480 (128 kB each), copied into shards, read by one process and by two. Every
measurement is a fresh process with a fresh folder. What is claimed is the growth of memory and the ratio of speeds.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

MEMBERS = 50
PICTURES = 2_000  # of the measurement of speed
SIZES = {"tiny": (8, 8), "real": (640, 480)}
RECIPE = """
name: synthetic
task: image captioning
form: caption
source: web
pool: web
downloads: [{{url: none}}]
licence: none
access: open
splits:
  train: {{reader: synthetic, files: [rows.txt], rows: {rows}}}
train: [train]
templates: caption
"""


def write(folder: Path, rows: int, size: tuple[int, int]) -> None:
    """Raw files of a split whose row n shows member n % MEMBERS of one tar under a key of its own."""
    rng = np.random.default_rng(0)
    (folder / "raw/web").mkdir(parents=True)
    (folder / "raw/web/rows.txt").write_text(str(rows))
    (folder / "synthetic.yaml").write_text(RECIPE.format(rows=rows))
    with tarfile.open(folder / "raw/web/00000.tar", "w") as tar:
        for number in range(MEMBERS):
            noise = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
            buffer = io.BytesIO()
            noise.filter(ImageFilter.GaussianBlur(1)).save(buffer, "JPEG", quality=90)
            info = tarfile.TarInfo(f"{number:09d}.jpg")
            info.size = buffer.tell()
            tar.addfile(info, io.BytesIO(buffer.getvalue()))


def measure(folder: Path, workers: int) -> dict[str, float]:
    """Prepares the split in this process; its seconds and peak megabytes."""
    from instructblip import recipes
    from instructblip.config.data import PathsConfig
    from instructblip.config.preparing import PrepareConfig
    from instructblip.data.preparing.prepare import prepare
    from instructblip.data.readers import registry
    from instructblip.data.readers.base import Context
    from instructblip.data.sample import Answer, MediaRef, Sample

    def synthetic(files: Sequence[Path], context: Context) -> Iterator[Sample]:
        for number in range(int(files[0].read_text())):
            ref = MediaRef("web", f"{number:09d}", relpath=f"00000.tar/{number % MEMBERS:09d}.jpg")
            yield context.sample(number, ref, answers=(Answer(f"a photo of thing {number}"),))

    def timed(items: Any, text: str) -> Any:
        started[text] = time.perf_counter()
        cpu[:] = [busy()]
        return items

    registry.READERS["synthetic"] = synthetic
    started: dict[str, float] = {}
    cpu: list[float] = []  # when pictures began to be read
    recipe = recipes.load(str(folder / "synthetic.yaml"))
    paths = PathsConfig(raw=str(folder / "raw"), data=str(folder / "data"))
    entry = prepare(recipe, "train", PrepareConfig(paths=paths, workers=workers), timed)
    assert entry["rows"] == recipe.splits["train"].rows and not entry["dropped"]
    begun = next(at for text, at in started.items() if text.endswith("pictures"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    seconds, spent = time.perf_counter() - begun, busy() - cpu[0]
    return {"seconds": seconds, "cpu_seconds": spent, "megabytes": peak}


def busy() -> float:
    """CPU seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(rows: int, size: str, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), rows, SIZES[size])
        command = [sys.executable, __file__, "--measure", name, "--workers", str(workers)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.workers)))
        return
    for workers in (1, 2):
        found = measured(PICTURES, "real", workers)
        rate, per_core = PICTURES / found["seconds"], PICTURES / found["cpu_seconds"]
        print(f"640x480, workers={workers}: {rate:,.0f} pictures/s, {per_core:,.0f} a CPU second", flush=True)
    if not arguments.rows:
        return
    least = measured(1_000, "tiny", 1)["megabytes"]
    print(f"1,000 rows: {least:,.0f} MB", flush=True)
    for rows in arguments.rows:
        found = measured(rows, "tiny", 1)
        grown = found["megabytes"] - least
        print(f"{rows:,} rows: {grown:,.0f} MB more, {rows / found['seconds']:,.0f} rows/s", flush=True)


if __name__ == "__main__":
    main()
