"""From a media reference to a decoded picture: finding the source file, reading it safely."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from instructblip import pools
from instructblip.data.archives import members
from instructblip.data.sample import MediaRef

MAX_PIXELS = 64_000_000  # ours: the largest photographs of the 26 sources have 25 million
MAX_BYTES = 1 << 30  # ours: of a file or member that is read whole
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
ORIENTATION = 0x0112  # EXIF tag
UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # where Pillow only warns


class BadMedia(Exception):
    """A picture that cannot be had: `where` it should be, and the `reason`."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


@dataclass(frozen=True)
class Place:
    """Bytes in a file of the publisher: all of it, or a member of a tar."""

    file: Path
    offset: int = 0
    length: int | None = None

    def read(self) -> bytes:
        """Raises BadMedia when the file cannot be read or ends early."""
        try:
            with self.file.open("rb") as stream:
                length = os.fstat(stream.fileno()).st_size if self.length is None else self.length
                if length > MAX_BYTES:
                    raise BadMedia(str(self.file), f"{length:,} bytes are over {MAX_BYTES:,}")
                stream.seek(self.offset)
                data = stream.read(length)
        except OSError as error:
            raise BadMedia(str(self.file), f"cannot be read ({error.strerror})") from error
        if len(data) < length:
            raise BadMedia(str(self.file), f"ends within the picture at byte {self.offset}")
        return data


@dataclass(frozen=True)
class RawPool:
    """A folder of pictures as their publisher lays them out, in files or in tars (img2dataset, WebDataset)."""

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
                f"or name the folder you have with +paths.media.{name}=DIR"
            )
        return cls(name, root, tuple(facts.layouts))

    def find(self, ref: MediaRef) -> Place:
        """Where the picture lies; `00000.tar/000000001.jpg` names a member of a tar.

        Raises BadMedia when no layout has it, the name leaves the folder, or the member is not a regular one.
        """
        relpath = ref.relpath or ""
        names = [
            layout.format(key=ref.key, relpath=relpath)
            for layout in self.layouts
            if ref.relpath or "relpath" not in layout
        ]
        for path in map(PurePosixPath, [relpath, *names]):
            if path.is_absolute() or ".." in path.parts:
                raise BadMedia(str(path), "file name leaves the picture folder")
        try:
            for name in names:
                if (self.root / name).is_file():
                    return Place(self.root / name)
                if place := self._member(PurePosixPath(name)):
                    return place
        except OSError as error:
            raise BadMedia(str(self.root), f"cannot be searched for {ref.key} ({error.strerror})") from error
        raise BadMedia(str(self.root), f"has no picture {ref.key}, neither {' nor '.join(names[:4])}")

    def _member(self, name: PurePosixPath) -> Place | None:
        for parent in name.parents:
            if parent.suffix == ".tar" and (tar := self.root / parent).is_file():
                found = members(tar).find(str(name.relative_to(parent)))
                if isinstance(found, str):
                    raise BadMedia(str(tar), found)
                return Place(tar, *found)
        return None


def decode(data: bytes) -> Image.Image:
    """`decoded` as Pillow's picture."""
    return Image.fromarray(decoded(data))


def decoded(data: bytes) -> NDArray[np.uint8]:
    """An upright RGB picture, (H, W, 3), from the bytes of a file; the content decides the format, not the name.

    EXIF orientation is honoured, transparency goes onto white. Raises BadMedia.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadMedia("picture", f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels")
            upright = image.getexif().get(ORIENTATION, 1) == 1
            if image.format == "JPEG" and image.mode == "RGB" and upright:
                return simplejpeg.decode_jpeg(data)  # same pixels as Pillow, faster
            return np.array(_rgb(image))
    except UNDECODABLE as error:
        raise BadMedia("picture", f"cannot be decoded ({_why(error)})") from error


def extension(data: bytes) -> str:
    """File extension by content, from the first bytes alone. Raises BadMedia."""
    try:
        with Image.open(BytesIO(data)) as image:
            found = image.format
    except UNDECODABLE as error:
        raise BadMedia("picture", f"cannot be opened ({_why(error)})") from error
    if found not in EXTENSIONS:
        raise BadMedia("picture", f"format {found} is not one of {', '.join(EXTENSIONS)}")
    return EXTENSIONS[found]


def _why(error: Exception) -> str:
    """Pillow's words, but for those that name an address in memory."""
    return "no known format" if isinstance(error, UnidentifiedImageError) else str(error)


def _rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
