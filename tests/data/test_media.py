"""Pictures are found in every layout, decoded by content, and refused with a reason."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instructblip.data import media
from instructblip.data.media import BadMedia, RawPool, decode, extension
from instructblip.data.sample import MediaRef

RED = (250, 10, 10)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "train2014/COCO_train2014_000000000094.jpg", "val2014/COCO_val2014_000000000094.jpg", "train2017/000000000094.jpg",
        "val2017/000000000094.jpg", "000000000094.jpg", "COCO_val2014_000000000094.jpg",
    ],
)  # fmt: skip
@pytest.mark.parametrize("relpath", [None, "train2014/COCO_train2014_000000000094.jpg", "000000000094.jpg"])
def test_every_coco_layout_is_found(tmp_path: Path, name: str, relpath: str | None) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    assert RawPool.open("coco", tmp_path).find(MediaRef("coco", "94", relpath=relpath)).file == path


@pytest.mark.parametrize("relpath", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, relpath: str) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    with pytest.raises(BadMedia, match="leaves the picture folder"):
        RawPool.open("coco", tmp_path / "pool").find(MediaRef("coco", "1", relpath=relpath))


def test_a_missing_folder_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"paths\.media\.coco"):
        RawPool.open("coco", tmp_path / "nothing")


def test_jpeg_decoding_equals_pillow() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=90)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(Image.open(BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("image", "form", "pixel"),
    [
        (Image.new("L", (4, 4), 77), "JPEG", (77, 77, 77)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
        (Image.new("P", (4, 4), 0), "GIF", (0, 0, 0)),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)), "PNG", (156, 156, 156)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
    ],
    ids=["grey", "cmyk", "gif", "transparent", "16 bit", "1 bit"],
)
def test_every_mode_becomes_rgb(image: Image.Image, form: str, pixel: tuple[int, ...]) -> None:
    decoded = decode(encoded(image, form))
    assert decoded.mode == "RGB"
    assert np.abs(np.array(decoded.getpixel((1, 1))) - pixel).max() <= 2


def test_exif_orientation_is_honoured() -> None:
    image = Image.new("RGB", (8, 4))
    image.paste(RED, (0, 0, 4, 4))
    exif = image.getexif()
    exif[media.ORIENTATION] = 6  # the camera was turned: show it turned right by 90 degrees
    upright = decode(encoded(image, "JPEG", exif=exif, quality=95))
    assert upright.size == (4, 8)
    assert np.abs(np.array(upright.getpixel((1, 1))) - RED).max() < 20, "the red half is on top"


def test_the_content_names_the_extension() -> None:
    assert extension(encoded(Image.new("RGB", (4, 4)), "GIF")) == "gif"
    assert extension(encoded(Image.new("RGB", (4, 4)), "JPEG")) == "jpg"


def test_truncated_empty_and_foreign_bytes_are_bad_media() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for form in ("JPEG", "PNG"):
        whole = encoded(Image.fromarray(noise), form)
        for cut in (0, 10, len(whole) // 2, len(whole) - 40):
            with pytest.raises(BadMedia):
                decode(whole[:cut])
    with pytest.raises(BadMedia):
        decode(b"<html>not found</html>")


def test_a_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_PIXELS", 99)
    with pytest.raises(BadMedia, match="10x10 is over 99 pixels"):
        decode(encoded(Image.new("RGB", (10, 10)), "PNG"))


@pytest.mark.filterwarnings(
    "error::PIL.Image.DecompressionBombWarning"
)  # as importing media sets it; pytest resets filters
def test_what_pillow_only_warns_of_is_an_error() -> None:
    content = BytesIO()
    Image.new("1", (9800, 9800)).save(content, "PNG")
    for read in (decode, extension):
        with pytest.raises(BadMedia, match="could be decompression bomb"):
            read(content.getvalue())


def test_real_photographs_decode_as_pillow_does(real: Path) -> None:
    paths = sorted((real / "images" / "coco").glob("*.jpg"))[:12]
    assert paths
    for path in paths:
        assert np.array_equal(np.asarray(decode(path.read_bytes())), np.asarray(Image.open(path).convert("RGB")))
