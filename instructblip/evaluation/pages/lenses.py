"""Where the queries of a run looked: what `report.py lens=true` left in the run's folder, as a page shows it.

A folder `lens/<picture>-<digits>` holds lens.json, attention.safetensors (the weights), picture.jpg and attention.png.
Shapes: R instructions, K layers that see the image, Q queries, P image tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from instructblip.evaluation.pages.maps import heat, largest, over, pale
from instructblip.evaluation.pages.pictures import SIDE, Picture, shown
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.files import read_json, replacing, write_json
from instructblip.models.attention import Attended

FACTS, WEIGHTS, PHOTO = "lens.json", "attention.safetensors", "picture.jpg"
UNAWARE = (
    "This Q-Former does not read instructions, so it looks the same whatever is asked: the difference is exactly 0."
)


@dataclass(frozen=True)
class Facts:
    """What was asked, and of which model."""

    run: str
    picture: str
    instructions: tuple[str, ...]
    answers: tuple[str, ...]
    layers: tuple[int, ...]  # those that see the image, counted from 0
    grid: tuple[int, int]  # rows and columns of the patches
    instruction_aware: bool
    weights: str  # the checkpoint's hash
    code: str


@dataclass(frozen=True)
class Look:
    """One picture looked at under several instructions; `picture` is small."""

    facts: Facts
    weights: Tensor  # (R, K, Q, P)
    picture: Image.Image

    def attended(self, instruction: int) -> Attended:
        return Attended(self.weights[instruction], self.facts.layers, self.facts.grid)

    @property
    def maps(self) -> Tensor:
        """(R, K, Q, rows, columns)"""
        return Attended(self.weights, self.facts.layers, self.facts.grid).maps

    @property
    def difference(self) -> Tensor:
        """(K, Q, rows, columns): the first instruction's maps less the second's."""
        return self.maps[0] - self.maps[1]


@dataclass(frozen=True)
class Cell:
    """A small map: an RGBA picture of one pixel a patch, and what it says in numbers."""

    url: str
    said: str


@dataclass(frozen=True)
class Row:
    """The maps of one instruction, or of the difference, in one layer: the mean of all queries, then each query."""

    name: str
    said: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Layer:
    number: int
    rows: Sequence[Row]
    scales: str


@dataclass(frozen=True)
class Card:
    """The mean over layers and queries on the picture."""

    title: str
    picture: Picture
    text: str
    note: str


@dataclass(frozen=True)
class Section:
    """A look as the template draws it; `under` is the picture that lies under the small maps."""

    title: str
    under: str
    ratio: float  # width to height of the picture
    cards: Sequence[Card]
    layers: Sequence[Layer]
    notes: Sequence[str]


def save(look: Look, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        save_file({"weights": look.weights.contiguous()}, temporary)
    with replacing(folder / PHOTO) as temporary:
        small(look.picture).save(temporary, "JPEG", quality=90)
    write_json(folder / FACTS, asdict(look.facts))  # last: a folder with it is whole


def read(folder: Path) -> Look:
    facts: dict[str, Any] = read_json(folder / FACTS)
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    with Image.open(folder / PHOTO) as picture:
        return Look(Facts(**facts), load_file(folder / WEIGHTS)["weights"], picture.convert("RGB"))


def looks(run: Path) -> list[Look]:
    """All that were saved with a run."""
    return [read(path.parent) for path in sorted(run.glob(f"lens/*/{FACTS}"))]


def findings(run: Path) -> list[Sheet]:
    """What was measured on scenes of the embedded world, one table a call of `report.py lens=true scenes=`."""
    return [Sheet(**read_json(path)["sheet"]) for path in sorted(run.glob("lens/scenes-*.json"))]


def small(picture: Image.Image) -> Image.Image:
    """At most `SIDE` pixels, and a tiny picture enlarged to about half of that with its pixels kept."""
    longer = max(picture.size)
    if longer <= SIDE // 2:
        factor = round(SIDE / 2 / longer)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    copy = picture.copy()
    copy.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return copy


def section(look: Look) -> Section:
    facts, picture = look.facts, small(look.picture)
    maps, difference = look.maps, look.difference
    names = [
        *((f"{number}", text) for number, text in enumerate(facts.instructions, start=1)),
        ("1 less 2", "difference"),
    ]
    return Section(
        title=f"{facts.run} looks at {facts.picture}",
        under=_url(pale(picture), "JPEG"),
        ratio=picture.width / picture.height,
        cards=_cards(look, picture),
        layers=[
            _layer(look, place, names, [*(each[place] for each in maps), difference[place]])
            for place in range(len(facts.layers))
        ],
        notes=notes(look),
    )


def notes(look: Look) -> list[str]:
    """What one must know to read the maps."""
    cls = look.attended(0).cls_share
    told = [
        "A map is softmax weights, the mean over heads; patches and CLS sum to 1 for each query in each layer.",
        f"CLS is left out of the maps: it has {float(cls.mean()):.1%} of the attention under instruction 1."
        if float(cls.max())
        else "This vision encoder has no CLS token; the maps hold all of the attention.",
        "A patch's token also holds what the encoder mixed into it from other patches. What the maps mean is measured "
        f"by `python report.py lens=true run={look.facts.run} scenes=200`.",
    ]
    return told if look.facts.instruction_aware else [UNAWARE, *told]


def _cards(look: Look, picture: Image.Image) -> list[Card]:
    means, difference = look.maps.mean((1, 2)), look.difference.mean((0, 1))  # (R, rows, columns), (rows, columns)
    under, scale, most = pale(picture), largest(means), largest(difference)
    rows, columns = look.facts.grid
    cards = [Card("", shown(picture, look.facts.picture), look.facts.picture, f"{rows} x {columns} patches")]
    for number, (text, answer) in enumerate(zip(look.facts.instructions, look.facts.answers, strict=True)):
        cls = float(look.attended(number).cls_share.mean())
        note = f"says: {answer or '(nothing)'}. CLS has {cls:.1%}"
        cards.append(Card(f"{number + 1}", shown(over(under, means[number], scale), text), text, note))
    said = f"blue: more under 2. At most {most:.3f} a patch" if most else "no difference at all"
    less = shown(over(under, difference, most), "difference")
    return [*cards, Card("1 less 2", less, "orange: more under 1", said)]


def _layer(look: Look, place: int, names: Sequence[tuple[str, str]], maps: Sequence[Tensor]) -> Layer:
    """`maps` are (Q, rows, columns) each, the last one the difference."""
    asked, difference = torch.stack(list(maps[:-1])), maps[-1]
    scales = (largest(asked.mean(1)), largest(asked)), (largest(difference.mean(0)), largest(difference))
    rows = []
    for number, ((name, text), each) in enumerate(zip(names, maps, strict=True)):
        of_mean, of_query = scales[number == len(maps) - 1]
        cls = look.attended(number).cls_share[place] if number < len(maps) - 1 else None
        cells = [_cell(each.mean(0), of_mean, "mean of the queries", None if cls is None else float(cls.mean()))]
        cells += [
            _cell(one, of_query, f"query {query}", None if cls is None else float(cls[query]))
            for query, one in enumerate(each)
        ]
        rows.append(Row(name, text, cells))
    (mean, query), (mean_less, query_less) = scales
    told = f"full colour: {query:.3f} a patch, of the mean {mean:.3f}"
    told += f"; of the difference {query_less:.3f}, {mean_less:.3f}"
    return Layer(look.facts.layers[place], rows, told)


def _cell(values: Tensor, scale: float, name: str, cls: float | None) -> Cell:
    row, column = divmod(int(values.abs().argmax()), values.size(1))
    most = float(values[row, column])
    said = f"{name}: {most:+.3f}" if cls is None else f"{name}: {most:.3f}"
    said += f" in row {row + 1}, column {column + 1}"
    return Cell(_url(heat(values, scale), "PNG"), said if cls is None else f"{said}; CLS {cls:.3f}")


def _url(picture: Image.Image, form: str) -> str:
    content = BytesIO()
    picture.save(content, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
