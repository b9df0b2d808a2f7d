"""Pictures as data URLs, small enough for a page that holds hundreds of them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from instructblip.data.media import BadMedia, decode
from instructblip.data.sample import Sample
from instructblip.data.shards import MediaPool

SIDE = 320  # pixels of the longer side on a page


@dataclass(frozen=True)
class Picture:
    """A data URL, or why there is none."""

    name: str
    url: str | None = None
    error: str | None = None


def shown(image: Image.Image, name: str) -> Picture:
    """A picture at its own size or smaller."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = BytesIO()
    small.save(content, "JPEG", quality=85)
    return Picture(name, f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}")


def of_sample(sample: Sample, data: Path, pools: dict[str, MediaPool]) -> list[Picture]:
    """What the model was shown: one picture, or a clip's frames. `pools` keeps what is open."""
    found = []
    for ref in sample.shown:
        name = f"{ref.pool}/{ref.key}"
        try:
            if ref.pool not in pools:
                pools[ref.pool] = MediaPool(data / "media" / ref.pool)
            found.append(shown(decode(pools[ref.pool].read(ref.key)), name))
        except BadMedia as error:
            found.append(Picture(name, error=str(error)))
    return found
