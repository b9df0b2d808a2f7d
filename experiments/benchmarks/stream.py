"""Speed, start and memory of the data stream beside what a user would pick instead.

`python -m experiments.benchmarks.stream [--pictures DIR]`; JPEGs under DIR, or rendered ones. Every measurement is a
fresh process; rounds alternate between the loaders. `energon` needs the extra `bench` and is `not run` without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 3
BATCHES = 25
MODULE = "experiments.benchmarks.stream"


def busy() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def megabytes(process: int | str = "self") -> float:
    """PSS of a process: its own memory and its share of what it has in common with others."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def anonymous(process: int | str = "self") -> float:
    """PSS without files mapped into memory, which the system may drop."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1000


def loading(folder: Path, name: str, datasets: int, workers: int, batches: int) -> dict[str, float]:
    """From nothing but the libraries to the first batch; then speed and memory, of which CPU time only when alone."""
    import torch

    from experiments.benchmarks.stream_loaders import BATCH, LOADERS, collator

    torch.set_num_threads(1)
    collator()  # reads the tokenizers once: not part of anyone's start
    if name == "energon":
        from experiments.benchmarks.stream_loaders import energon_blend

        energon_blend(folder, datasets)
    before, began = anonymous(), time.perf_counter()
    loader = LOADERS[name](folder, datasets, workers)
    next(loader)
    first, spent, began = time.perf_counter() - began, busy(), time.perf_counter()
    for _ in range(batches):
        next(loader)
    spent, wall = busy() - spent, time.perf_counter() - began
    found = {"first batch s": first, "samples/s": batches * BATCH / wall}
    if children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        return found | {"MB a worker": statistics.mean(map(megabytes, children))}
    return found | {"samples/CPU s": batches * BATCH / spent, "MB more": anonymous() - before}


def resuming(folder: Path, at: int) -> dict[str, float]:
    """Opening everything and reading the first batch at sample `at`; then the memory it took."""
    import torch

    from experiments.benchmarks.stream_loaders import BATCH, collator, steps

    torch.set_num_threads(1)
    collator()
    before, began = anonymous(), time.perf_counter()
    made = steps(folder, 1, at // BATCH, at // BATCH + 1)
    opened = time.perf_counter() - began
    step = made.read(at // BATCH)
    assert len(step.batches[0].uids) == BATCH and not step.bad
    return {"opening s": opened, "first batch s": time.perf_counter() - began, "MB more": anonymous() - before}


def skipping(folder: Path, rows: int) -> dict[str, float]:
    """Rows a second that webdataset passes over without decoding."""
    from experiments.benchmarks.stream_loaders import webdataset_rows

    source = webdataset_rows(folder)
    next(source)
    began = time.perf_counter()
    for _ in range(rows):
        next(source)
    return {"rows/s": rows / (time.perf_counter() - began)}


def picture_path(pictures: list[bytes], rounds: int = 4) -> dict[str, float]:
    """Pictures a CPU second to the same tensor, alternating; at most 2 levels apart before they are timed."""
    import numpy as np
    import torch

    from experiments.benchmarks.stream_loaders import SIZE, STD, lavis_pixels, normalised
    from instructblip.config.data import TransformsConfig
    from instructblip.data import keyed
    from instructblip.data.media import decoded
    from instructblip.data.transforms import TRIES, training_pixels

    torch.set_num_threads(1)

    def bytes_of(data: bytes, seed: int) -> torch.Tensor:
        return training_pixels(decoded(data), SIZE, TransformsConfig(), seed)

    def theirs(data: bytes, seed: int) -> torch.Tensor:
        flip, *u = keyed.uniform(seed, np.arange(1 + 4 * TRIES, dtype=np.uint64)).tolist()
        return lavis_pixels(data, u, flip < 0.5)

    ways: dict[str, Callable[[bytes, int], torch.Tensor]] = {
        "ours": bytes_of, "ours+float": lambda data, seed: normalised(bytes_of(data, seed)), "lavis": theirs
    }  # fmt: skip
    worst = max(
        float(((ways["ours+float"](data, n) - theirs(data, n)) * STD * 255).abs().max())
        for n, data in enumerate(pictures)
    )
    assert worst < 2.01, f"{worst} levels apart"
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = busy()
            for seed, data in enumerate(pictures):
                way(data, seed)
            rates[name].append(len(pictures) / (busy() - began))
    return {name: statistics.median(each) for name, each in rates.items()} | {"levels apart": worst}


def measured(*arguments: object) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", MODULE, "--measure", *map(str, arguments)]
    quiet = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def middle(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def show(title: str, found: dict[str, float]) -> None:
    print(f"{title}: " + ", ".join(f"{name} {value:,.3g}" for name, value in found.items()), flush=True)


def names() -> list[str]:
    energon = importlib.util.find_spec("megatron") is not None
    if not energon:
        print("energon: not run, the extra `bench` is not installed")
    return ["ours", "ours+float", "webdataset", *(["energon"] if energon else [])]


def side_by_side(folder: Path, pictures: list[bytes], rows: int) -> None:
    from experiments.benchmarks.stream_data import write

    write(folder / "13", pictures, 13, 4, rows)
    for workers in (0, 2):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names()}
        for _ in range(ROUNDS):
            for name in found:
                found[name].append(measured("load", folder / "13", name, 13, workers, BATCHES))
        for name, each in found.items():
            show(f"13 datasets, {workers} workers, {name}", middle(each))
    show("webdataset passes over rows", measured("skip", folder / "13", 20 * rows))


def growth(folder: Path, pictures: list[bytes], rows: int) -> None:
    from experiments.benchmarks.stream_data import write

    write(folder / "100", pictures, 100, 1, 50)
    for datasets in (1, 13, 100):
        for name in names():
            show(f"{datasets} datasets, 2 workers, {name}", measured("load", folder / "100", name, datasets, 2, 5))
    for tars in (10, 10_000):
        write(folder / f"tars{tars}", pictures[:1], 1, tars, 10_000)
        for name in names():
            show(f"{tars} shards, 2 workers, {name}", measured("load", folder / f"tars{tars}", name, 1, 2, 5))


def resume(folder: Path, pictures: list[bytes], keys: int) -> None:
    from experiments.benchmarks.stream_data import write_large

    for tars in (1_400, 10_000):
        large = folder / f"large{tars}"
        write_large(large, pictures, keys, tars)
        show(f"{keys:,} rows, {tars} shards, first opening", measured("resume", large, keys * 5 // 7))
        later = middle([measured("resume", large, keys * 5 // 7) for _ in range(ROUNDS)])
        show(f"{keys:,} rows, {tars} shards, every later one", later)


MEASURES: dict[str, Callable[..., Any]] = {
    "load": lambda folder, name, *n: loading(Path(folder), name, *map(int, n)),
    "resume": lambda folder, at: resuming(Path(folder), int(at)),
    "skip": lambda folder, rows: skipping(Path(folder), int(rows)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="folder of JPEGs, read through")
    parser.add_argument("--parts", nargs="*", default=["pictures", "side", "growth", "resume"])
    parser.add_argument("--rows", type=int, default=200, help="of each of 13 datasets")
    parser.add_argument("--keys", type=int, default=14_000_000)
    parser.add_argument("--measure", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, *rest = arguments.measure
        print(json.dumps(MEASURES[kind](*rest)))
        return
    from experiments.benchmarks.stream_data import pictures

    files = pictures(arguments.pictures)
    print(f"{len(files)} JPEGs of {sum(map(len, files)) / len(files) / 1000:.0f} kB")
    parts: dict[str, Callable[[Path], None]] = {
        "pictures": lambda _: show("pictures a CPU second", picture_path(files)),
        "side": lambda folder: side_by_side(folder, files, arguments.rows),
        "growth": lambda folder: growth(folder, files, arguments.rows),
        "resume": lambda folder: resume(folder, files, arguments.keys),
    }
    for part in arguments.parts:
        with tempfile.TemporaryDirectory() as name:
            parts[part](Path(name))


if __name__ == "__main__":
    main()
