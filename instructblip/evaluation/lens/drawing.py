"""The maps of a look as one picture: a band for each instruction and one for the difference; layers down, queries
across, the mean of all queries first."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from instructblip.evaluation.pages.lenses import Look
from instructblip.evaluation.pages.maps import largest, over, pale
from instructblip.files import replacing

TILE, GAP, MARGIN, LINE = 72, 4, 84, 22  # pixels: a map's longer side, between maps, left of them, of a line of text
INK, SOFT = (27, 30, 36), (95, 102, 114)


def draw(look: Look) -> Image.Image:
    maps, difference = look.maps, look.difference  # (R, K, Q, rows, columns), (K, Q, rows, columns)
    layers, queries = difference.shape[:2]
    width, height = _tile(look.picture)
    facts = look.facts
    titles = [f"{n}. {text}  ->  {said or '(nothing)'}" for n, (text, said) in enumerate(_asked(look), start=1)]
    titles.append("1 less 2: orange where 1 looks more, blue where 2 does" if facts.instruction_aware else
                  "1 less 2: exactly 0, as this Q-Former does not read instructions")  # fmt: skip
    band = 2 * LINE + layers * (height + GAP)
    canvas = Image.new("RGB", (MARGIN + (queries + 1) * (width + GAP) + GAP, len(titles) * (band + LINE)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    under = pale(look.picture).resize((width, height), Image.Resampling.BICUBIC)
    for number, title in enumerate(titles):
        top = number * (band + LINE) + GAP
        pen.text((GAP, top), " ".join(title.split()), INK, font)
        own = difference if number == len(maps) else maps[number]
        for column in range(queries + 1):
            name = f"query {column - 1}" if column else "mean"
            pen.text((MARGIN + column * (width + GAP), top + LINE), name, SOFT, font)
        for row in range(layers):
            y = top + 2 * LINE + row * (height + GAP)
            pen.text((GAP, y + height // 3), f"layer {facts.layers[row]}", SOFT, font)
            scales = _scales(difference[None, row] if number == len(maps) else maps[:, row])
            for column, values in enumerate([own[row].mean(0), *own[row]]):
                tile = over(under, values, scales[column > 0])
                canvas.paste(tile, (MARGIN + column * (width + GAP), y))
    return canvas


def write(look: Look, path: Path) -> None:
    with replacing(path) as temporary:
        draw(look).save(temporary, "PNG")


def _scales(maps: Tensor) -> tuple[float, float]:
    """(R, Q, rows, columns) of one layer: full colour of the mean over queries, and of a query, as on the page."""
    return largest(maps.mean(1)), largest(maps)


def _tile(picture: Image.Image) -> tuple[int, int]:
    longer = max(picture.size)
    return max(1, TILE * picture.width // longer), max(1, TILE * picture.height // longer)


def _asked(look: Look) -> list[tuple[str, str]]:
    return list(zip(look.facts.instructions, look.facts.answers, strict=True))
