"""The loaders that are compared: each yields `Batch`es of the same tensors, floats normalised as LAVIS does it.

Ours sends bytes to the device and normalises there; `ours+float` does it here, so that the work is the same.
The other two read the exported tars, decode and resize with Pillow as LAVIS' transforms do (torchvision's calls, which
are Pillow's), and share our tokenising and padding.
"""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.benchmarks.stream_data import recipe_of
from instructblip.choices import Draw
from instructblip.cli import composed
from instructblip.config.data import TransformsConfig
from instructblip.config.training import TrainConfig
from instructblip.data.collate import Batch, Collator, Row
from instructblip.data.mixture import Source, Stream
from instructblip.data.steps import Place, Reader, Steps, drawn_answer
from instructblip.data.tables import Table, from_row
from instructblip.data.templates import Example, render, templates
from instructblip.data.transforms import TRIES, random_box
from instructblip.models.tokenizers import tokenizers

ROOT = Path(__file__).resolve().parents[2]
RECIPE = recipe_of(0)  # the sets differ in name alone
SIZE, BATCH, SHUFFLE = 224, 16, 100
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def collator() -> Collator:
    config = composed("train", "experiment=miniature/scratch")
    assert isinstance(config, TrainConfig)
    return Collator.of(config.model, tokenizers(config.model), encoder_decoder=False)


def normalised(pixels: Tensor) -> Tensor:
    """Bytes to the float tensor of ToTensor and Normalize."""
    return pixels.to(torch.float32).div_(255).sub_(MEAN).div_(STD)


def lavis_pixels(data: bytes, u: Sequence[float], flip: bool) -> Tensor:
    """LAVIS' blip2_image_train in Pillow's calls: float (3, S, S)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    cut = image.crop(random_box(image.width, image.height, [0.5, 1.0], u))
    cut = cut.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cut
    return normalised(torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous())


def steps(folder: Path, datasets: int, first: int, last: int, seed: int = 0) -> Steps:
    """Our stream's steps over the first `datasets` sets."""
    chosen = [recipe_of(number) for number in range(datasets)]
    tables = [Table.of(folder, recipe, "train") for recipe in chosen]
    worded = [templates(each.wordings("train")) for each in chosen]
    sources = [
        Source(each.name, len(table), len(own), 1 / datasets)
        for each, table, own in zip(chosen, tables, worded, strict=True)
    ]
    stream = Stream(sources, seed, BATCH, BATCH, Draw.random)
    reader = Reader(stream, chosen, tables, worded, folder / "media", TransformsConfig(), SIZE)
    return Steps(reader, collator(), Place(0, 1, BATCH), BATCH, first, last)


def ours(folder: Path, datasets: int, workers: int, as_float: bool = False, first: int = 0) -> Iterator[Batch]:
    wanted = steps(folder, datasets, first, first + 1_000_000)
    for step in DataLoader(wanted, batch_size=None, num_workers=workers):
        for batch in step.batches:
            yield replace(batch, pixel_values=normalised(batch.pixel_values)) if as_float else batch


def read_row(row: dict[str, Any]) -> tuple[Example, Tensor]:
    """An exported row as LAVIS would read it: augmentation, wording and answer from the global generator."""
    sample = from_row(json.loads(row["json"]))
    pixels = lavis_pixels(row["jpg"], [random.random() for _ in range(4 * TRIES)], random.random() < 0.5)
    template = random.choice(templates(RECIPE.wordings("train")))
    return render(sample, template, drawn_answer(sample, random.random()), RECIPE.response), pixels


def collated(made: Collator, rows: Iterable[tuple[Example, Tensor]]) -> Batch:
    pairs = list(rows)
    return made.training([Row(example, n) for n, (example, _) in enumerate(pairs)], [pixels for _, pixels in pairs])


def webdataset(folder: Path, datasets: int, workers: int) -> Iterator[Batch]:
    """A WebDataset for each set, shuffled as its documentation shows, mixed by its RandomMix."""
    import webdataset as wds

    sets = [
        wds.WebDataset(_tars(folder, number), shardshuffle=SHUFFLE, resampled=True, empty_check=False).shuffle(SHUFFLE)
        for number in range(datasets)
    ]
    mixed = wds.DataPipeline(wds.RandomMix(sets), wds.map(read_row), wds.batched(BATCH, partial(collated, collator())))
    yield from DataLoader(mixed, batch_size=None, num_workers=workers)


def webdataset_rows(folder: Path) -> Iterator[Any]:
    """The rows of a set in order, undecoded: what skipping to a place costs."""
    import webdataset as wds

    while True:
        yield from wds.WebDataset(_tars(folder, 0), shardshuffle=False, empty_check=False)


def energon(folder: Path, datasets: int, workers: int) -> Iterator[Batch]:
    """megatron-energon's blend of the same tars, prepared by its own command's function beforehand."""
    from megatron.energon import get_loader

    yield from get_loader(_energon_set(folder, datasets, workers))


def _energon_set(folder: Path, datasets: int, workers: int) -> Any:
    from megatron import energon as en

    warnings.filterwarnings("ignore")
    made = collator()

    @dataclass
    class Exported(en.Sample):
        jpg: bytes
        json: bytes

    @en.stateless  # type: ignore[untyped-decorator]
    def cooked(row: dict[str, Any]) -> Exported:
        return Exported(**en.basic_sample_keys(row), jpg=row["jpg"], json=row["json"])

    class Task(en.TaskEncoder):
        decoder = None
        cookers = (en.Cooker(cooked),)

        def encode_sample(self, sample: Any) -> Any:
            return read_row(vars(sample))

        def batch(self, samples: Any) -> Batch:
            return collated(made, samples)

    config = en.WorkerConfig(rank=0, world_size=1, num_workers=workers)
    path = energon_blend(folder, datasets)
    return en.get_train_dataset(
        path, worker_config=config, batch_size=BATCH, shuffle_buffer_size=SHUFFLE, max_samples_per_sequence=SHUFFLE,
        task_encoder=Task(),
    )  # fmt: skip


def energon_blend(folder: Path, datasets: int) -> Path:
    """Prepares the exported sets, where that is not done, and writes the file that blends them."""
    from megatron.energon.flavors.webdataset import BaseWebdatasetFactory

    for number in range(datasets):
        exported = folder / "exported" / f"set{number}"
        if not (exported / ".nv-meta").is_dir():
            names = [path.name for path in sorted(exported.glob("*.tar"))]
            BaseWebdatasetFactory.prepare_dataset(exported, names, split_parts_ratio=[("train", 1.0)], workers=1)
            kind = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
            OmegaConf.save(OmegaConf.create(kind), exported / ".nv-meta/dataset.yaml")
    blend = {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {"train": {"blend": [{"weight": 1.0, "path": f"set{number}"} for number in range(datasets)]}},
    }
    path = folder / "exported" / f"blend{datasets}.yaml"
    OmegaConf.save(OmegaConf.create(blend), path)
    return path


def _tars(folder: Path, number: int) -> list[str]:
    return sorted(map(str, (folder / "exported" / f"set{number}").glob("*.tar")))


LOADERS: dict[str, Any] = {
    "ours": ours,
    "ours+float": partial(ours, as_float=True),
    "webdataset": webdataset,
    "energon": energon,
}
