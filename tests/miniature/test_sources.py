import hashlib
from pathlib import Path

import pytest
from PIL import Image

from instructblip.miniature import sources
from instructblip.miniature.albums import ALBUMS, Picture, Sizes
from instructblip.miniature.drawing import PLAIN
from instructblip.miniature.scenes import CELL, COLOURS, Role

TINY = Sizes(scale=0.006)
TEXTS_OF_WORLD = {7: "4d45f862b5d4f5fd"}  # hash of all annotation files at seed 0

MEDIA = (".jpg", ".png", ".gif")


def digest(folder: Path, pattern: str = "*") -> str:
    files = sorted(file for file in folder.rglob(pattern) if file.is_file())
    assert files
    content = [file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in {"one": 0, "two": 0, "other": 1}.items():
        sources.write(tmp_path / name, seed, TINY)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    for part in tmp_path.glob("one/*/"):
        assert digest(part) != digest(tmp_path / "other" / part.name), part


def test_another_world_has_another_number(tmp_path: Path) -> None:
    """Whoever changes what a seed writes raises `WORLD`, so that an older tree is not taken for a new one."""
    sources.write(tmp_path / "raw", 0, TINY)
    assert {sources.WORLD: digest(tmp_path / "raw", "*.json*")} == TEXTS_OF_WORLD


def test_pictures_show_their_scenes(tree: Path, albums: dict[str, list[Picture]]) -> None:
    shown, backgrounds = 0, set()
    for name, album in albums.items():
        for picture in album:
            file = tree / ALBUMS[name].pool / picture.file
            if picture.look != PLAIN or name == "web":
                continue
            with Image.open(file) as image:
                for item in picture.scene.objects:
                    pixel = image.convert("RGB").getpixel(
                        (item.column * CELL + CELL // 2, item.row * CELL + CELL // 2 - 1)
                    )
                    assert isinstance(pixel, tuple)
                    tolerance = 60 if file.suffix == ".gif" else 30
                    assert max(abs(a - b) for a, b in zip(pixel, COLOURS[item.colour], strict=True)) < tolerance, file
                backgrounds.add(image.convert("RGB").getpixel((0, 0)))
            shown += 1
    assert shown > 800
    assert len(backgrounds) > 0.8 * shown


def test_every_picture_of_an_album_is_in_its_pool_and_nothing_else(
    tree: Path, albums: dict[str, list[Picture]]
) -> None:
    for pool in {album.pool for name, album in ALBUMS.items() if name != "web"}:
        wanted = {
            picture.file
            for name, album in albums.items()
            if ALBUMS[name].pool == pool and name != "web"
            for picture in album
        }
        there = {file.relative_to(tree / pool).as_posix() for file in (tree / pool).rglob("*") if file.suffix in MEDIA}
        assert there == wanted


def test_writing_twice_does_nothing(tmp_path: Path) -> None:
    sources.write(tmp_path / "raw", 0, TINY)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    sources.write(tmp_path / "raw", 0, TINY)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


@pytest.mark.parametrize(("seed", "sizes"), [(1, TINY), (0, Sizes())])
def test_another_miniature_in_the_folder_is_refused(tmp_path: Path, seed: int, sizes: Sizes) -> None:
    sources.write(tmp_path / "raw", 0, TINY)
    with pytest.raises(ValueError, match=r"raw holds .*'seed': 0.*paths\.raw"):
        sources.write(tmp_path / "raw", seed, sizes)


def test_foreign_files_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(ValueError, match=r"files that are not a miniature.*paths\.raw"):
        sources.write(tmp_path, 0, TINY)
    assert [file.name for file in tmp_path.iterdir()] == ["annotations.json"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sources.write(tmp_path / "raw", 0, TINY)
    assert (tmp_path / "raw" / sources.STAMP).is_file()


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(sources.WRITERS, "vsr", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sources.write(tmp_path / "raw", 0, TINY)
    assert list(tmp_path.iterdir()) == []
    sources.write(tmp_path / "raw", 0, TINY)
    assert (tmp_path / "raw" / sources.STAMP).is_file()


def test_the_scenes_in_words_lie_beside_the_tables(tmp_path: Path) -> None:
    sources.write(tmp_path / "raw", 0, TINY)
    sources.hand_over(tmp_path / "raw", tmp_path / "prepared")
    told = (tmp_path / "prepared/scenes.jsonl").read_text(encoding="utf-8")
    assert told == (tmp_path / "raw/scenes.jsonl").read_text(encoding="utf-8") and "top left" in told


def test_a_world_of_one_role_is_another_world(tmp_path: Path) -> None:
    sources.write(tmp_path / "raw", 0, TINY, Role.alignment)
    with pytest.raises(ValueError, match="alignment"):
        sources.write(tmp_path / "raw", 0, TINY)
