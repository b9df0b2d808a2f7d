"""What a linear map reads off the frozen patches, the gate of the vision encoder, and off the queries behind them.

A bottleneck can only lose what the encoder has. Scenes are of the evaluation role, under a seed of their own.
Shapes: N pictures or cells, P patches, V vision width, Q queries, D width of the language model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from instructblip.data.transforms import evaluation_pixels
from instructblip.miniature.albums import printed_on
from instructblip.miniature.drawing import PLAIN, Look, render
from instructblip.miniature.scenes import COLOURS, GRID, SHAPES, SIZES, WORDS, Object, Role, Scene, distinct, sample
from instructblip.models.instructblip import InstructBlip
from instructblip.models.vision import VisionEncoder

OF_A_THING = ("shape", "colour", "size", "word", "cell")  # off the patches of its cell
OF_THE_RED = ("shape", "size", "cell")  # off the queries
PICTURES = 3000  # of them a third is kept to measure
FEW = 600  # of them are enough for what every patch tells
BLURRED = 12.0  # pixels: nothing can be told
RIDGE = 1e-4


def probe(vision: VisionEncoder, seed: int = 0, pictures: int = PICTURES) -> dict[str, float]:
    """Accuracy of each factor on pictures that the linear maps were not fitted on.

    The cell is read off all its patches, `position` of each patch off itself alone: what attends to patches knows no
    other order of them.
    """
    rng = random.Random(f"probe/{seed}")
    scenes = distinct(pictures, Role.evaluation, rng, printed_on)
    tokens = encode(vision, scenes, rng)  # (N, P, V)
    cells = by_cell(tokens)  # (N, 9, V of a cell)
    fitted = _fitted(pictures)
    found = {}
    for factor in OF_A_THING:
        rows = [(place, item) for place, scene in enumerate(scenes) for item in scene.objects]
        features = torch.stack([cells[place, item.cell] for place, item in rows])
        labels = torch.tensor([label(item, factor) for _, item in rows])
        train = fitted[[place for place, _ in rows]]
        found[factor] = accuracy(features, labels, train)
    found["position"] = position(tokens[:FEW])
    blurred = torch.cat([tokens, encode(vision, scenes, rng, Look(blur=BLURRED))]).mean(1)  # (2N, V)
    labels = torch.arange(2).repeat_interleave(pictures)
    found["blur"] = accuracy(blurred, labels, fitted.repeat(2))
    return found


def probe_queries(model: InstructBlip, seed: int = 0, pictures: int = PICTURES) -> dict[str, float]:
    """Accuracy of what the queries tell, unasked, of a thing among others: the only red one."""
    rng = random.Random(f"queries/{seed}")
    scenes = distinct(pictures, Role.evaluation, rng, with_one_red)
    pixels = _pixels(scenes, rng, model.vision.image_size)
    queries = torch.cat([_unasked(model, part) for part in pixels.split(256)])  # (N, Q * D)
    labels = {factor: [label(_reds(scene)[0], factor) for scene in scenes] for factor in OF_THE_RED}
    return {factor: accuracy(queries, torch.tensor(each), _fitted(pictures)) for factor, each in labels.items()}


def with_one_red(rng: random.Random) -> Scene:
    while len(_reds(scene := sample(rng))) != 1:
        pass
    return scene


def _reds(scene: Scene) -> list[Object]:
    return [item for item in scene.objects if item.colour == "red"]


@torch.no_grad()
def _unasked(model: InstructBlip, pixels: Tensor) -> Tensor:
    nothing = torch.empty(len(pixels), 0, dtype=torch.long)
    return model.query_embeds(pixels, nothing, nothing).flatten(1)


def position(tokens: Tensor) -> float:
    """Which of the P patches (N, P, V) one is; chance is 1 / P."""
    number, patches, _ = tokens.shape
    labels, train = torch.arange(patches).repeat(number), _fitted(number).repeat_interleave(patches)
    return accuracy(tokens.flatten(0, 1), labels, train)


def _fitted(pictures: int) -> Tensor:
    """(N,) True of those that a linear map is fitted on."""
    return torch.arange(pictures) < pictures - pictures // 3


def label(item: Object, factor: str) -> int:
    if factor == "word":
        return 1 + WORDS.index(item.word) if item.word else 0
    if factor == "cell":
        return item.cell
    return {"shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(SIZES)}[factor].index(getattr(item, factor))


@torch.no_grad()
def encode(vision: VisionEncoder, scenes: Sequence[Scene], rng: random.Random, look: Look = PLAIN) -> Tensor:
    """Patches (N, P, V), CLS left out."""
    pixels = _pixels(scenes, rng, vision.image_size, look)
    tokens = torch.cat([vision(part) for part in pixels.split(256)])
    rows, columns = vision.grid
    return tokens[:, -rows * columns :]


def _pixels(scenes: Sequence[Scene], rng: random.Random, size: int, look: Look = PLAIN) -> Tensor:
    """(N, 3, size, size) as a model is shown them."""
    return torch.stack([evaluation_pixels(render(scene, rng, look), size) for scene in scenes])


def by_cell(tokens: Tensor) -> Tensor:
    """(N, P, V) -> (N, 9, patches of a cell * V), cells row by row."""
    side = int(tokens.size(1) ** 0.5)
    grid = tokens.unflatten(1, (GRID, side // GRID, GRID, side // GRID))  # (N, 3, s, 3, s, V)
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)


def accuracy(features: Tensor, labels: Tensor, train: Tensor) -> float:
    """Of multinomial logistic regression, fitted where `train` (N,) is True and measured where it is not."""
    known, own = features[train], labels[train]
    mean, std = known.mean(0), known.std(0).clamp(min=1e-6)
    inputs, classes = (known - mean) / std, int(labels.max()) + 1
    weight = torch.zeros(inputs.size(1), classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(inputs @ weight + bias, own) + RIDGE * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    with torch.no_grad():
        said = (((features[~train] - mean) / std) @ weight + bias).argmax(1)
    return float((said == labels[~train]).float().mean())
