"""From a media reference to a decoded picture: finding the source file, reading it safely."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from instructblip import pools
from instructblip.data.sample import MediaRef

MAX_PIXELS = 64_000_000  # ours: the largest photographs of the 26 sources have 25 million
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
ORIENTATION = 0x0112  # EXIF tag


class BadMedia(Exception):
    """A picture that cannot be had: `where` it should be, and the `reason`."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


@dataclass(frozen=True)
class RawPool:
    """A folder of pictures as their publisher lays them out."""

    name: str
    root: Path
    layouts: tuple[str, ...]

    @classmethod
    def open(cls, name: str, root: Path) -> RawPool:
        """Raises ValueError naming the folder and its setting when it is not there."""
        facts = pools.load(name)
        if not root.is_dir():
            raise ValueError(
                f"no folder {root} for the pictures of pool {name!r}; download "
                f"{' '.join(download.url for download in facts.downloads) or 'them'} into it, "
                f"or point paths.media.{name} at the folder you have"
            )
        return cls(name, root, tuple(facts.layouts))

    def find(self, ref: MediaRef) -> Path:
        """The picture's file. Raises BadMedia when no layout has it, or the name leaves the folder."""
        relpath = PurePosixPath(ref.relpath or "")
        if relpath.is_absolute() or ".." in relpath.parts:
            raise BadMedia(str(relpath), "file name leaves the picture folder")
        names = [
            layout.format(key=ref.key, relpath=relpath)
            for layout in self.layouts
            if ref.relpath or "relpath" not in layout
        ]
        for name in names:
            if (self.root / name).is_file():
                return self.root / name
        raise BadMedia(str(self.root), f"has no picture {ref.key}, neither {' nor '.join(names[:4])}")


def decode(data: bytes) -> Image.Image:
    """An upright RGB picture from the bytes of a file; the content decides the format, not the name.

    EXIF orientation is honoured, transparency goes onto white. Raises BadMedia.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadMedia("picture", f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels")
            return _decode(image, data)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadMedia("picture", f"cannot be decoded ({error})") from error


def extension(data: bytes) -> str:
    """File extension by content, after decoding the whole picture. Raises BadMedia."""
    decode(data)
    with Image.open(BytesIO(data)) as image:
        if image.format not in EXTENSIONS:
            raise BadMedia("picture", f"format {image.format} is not one of {', '.join(EXTENSIONS)}")
        return EXTENSIONS[image.format]


def _decode(image: Image.Image, data: bytes) -> Image.Image:
    upright = image.getexif().get(ORIENTATION, 1) == 1
    if image.format == "JPEG" and image.mode == "RGB" and upright:
        return Image.fromarray(simplejpeg.decode_jpeg(data))  # same pixels as Pillow, faster
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
