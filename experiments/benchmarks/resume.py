"""What going on at step 60,000 costs: `python experiments/benchmarks/resume.py`.

The paper's 13 held-in sets at their official sizes (16 million rows, the tables some 4 GB) are written with one text
in every row, which opening does not read. Then, in fresh processes: the tables are opened, the stream is made, and
step 60,000 of 16 groups of 8 is drawn with what its samples cost. Processor seconds, and those of the clock.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

HELD_IN = (
    "coco_caption", "web_capfilt", "textcaps", "vqav2", "okvqa", "aokvqa", "ocrvqa", "vqav2_vqg", "okvqa_vqg",
    "aokvqa_vqg", "llava_conversation", "llava_detail", "llava_reasoning",
)  # fmt: skip
STEP = 60_000


def write(folder: Path) -> int:
    """A table for each recipe, in the batches of prepare.py; returns the rows."""
    from instructblip import recipes
    from instructblip.data.sample import Answer, Form, MediaRef, Sample
    from instructblip.data.tables import BATCH_ROWS, FEATURES, to_row

    media = (MediaRef("coco", "123456"),)
    text = {"question": "What is on the table?"}
    row = to_row(Sample("d/s/1", "d", "s", Form.vqa, media, text, (Answer("a cup"),)))
    batch = pa.RecordBatch.from_pylist([row] * BATCH_ROWS, FEATURES.arrow_schema)
    total = 0
    for name in HELD_IN:
        recipe = recipes.load(name)
        assert recipe.sampling is not None
        size = recipe.sampling.size
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
            for start in range(0, size, BATCH_ROWS):
                writer.write_batch(batch[: size - start])
        total += size
    return total


def measure(folder: Path, draw: str) -> tuple[float, float]:
    """Processor and clock seconds from nothing opened to step 60,000 drawn."""
    from instructblip.choices import Draw
    from instructblip.data.mixture import Source, Stream
    from instructblip.data.tables import Table

    began = time.process_time(), time.perf_counter()
    tables = [Table(folder / f"{name}.arrow") for name in HELD_IN]
    roots = np.sqrt([len(table) for table in tables])
    p = roots / roots.sum()
    sources = [Source(name, len(table), 13, float(q)) for name, table, q in zip(HELD_IN, tables, p, strict=True)]
    picks = Stream(sources, 42, 128, 8, Draw[draw]).step(STEP)
    for source, table in enumerate(tables):
        if rows := [pick.row for pick in picks if pick.source == source]:
            table.chars(np.array(rows))
    return time.process_time() - began[0], time.perf_counter() - began[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(
            "{:.2f} processor seconds, {:.2f} by the clock".format(
                *measure(Path(arguments.measure[0]), arguments.measure[1])
            )
        )
        return
    with tempfile.TemporaryDirectory() as name:
        print(f"{write(Path(name)):,} rows in {len(HELD_IN)} tables", flush=True)
        for draw in ("random", "even", "random", "even"):
            command = [sys.executable, __file__, "--measure", name, draw]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(f"{draw}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
