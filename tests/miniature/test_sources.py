import hashlib
from pathlib import Path

import pytest
from PIL import Image

from instructblip.miniature import sources
from instructblip.miniature.albums import ALBUMS, Sizes, pictures
from instructblip.miniature.scenes import CELL, COLOURS

TINY = Sizes(given={"coco_train": 6, "coco_val": 2, "coco_test": 3, "vsr_train": 4, "vsr_dev": 4, "vsr_test": 4})
TEXTS_OF_WORLD = {1: "b915d6a4b089fc18"}  # hash of all annotation files at seed 0


def digest(folder: Path, pattern: str = "*") -> str:
    files = sorted(file for file in folder.rglob(pattern) if file.is_file())
    assert files
    content = [file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in {"one": 0, "two": 0, "other": 1}.items():
        sources.write(tmp_path / name, seed, TINY)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    for part in ("coco/train2014", "coco/annotations", "vqav2", "vsr"):
        assert digest(tmp_path / "one" / part) != digest(tmp_path / "other" / part)


def test_another_world_has_another_number(tmp_path: Path) -> None:
    """Whoever changes what a seed writes raises `WORLD`, so that an older tree is not taken for a new one."""
    sources.write(tmp_path / "raw", 0, TINY)
    assert {sources.WORLD: digest(tmp_path / "raw", "*.json*")} == TEXTS_OF_WORLD


def test_pictures_show_their_scenes(tree: Path, seed: int, sizes: Sizes) -> None:
    shown, backgrounds = 0, set()
    for name in ALBUMS:
        for picture in pictures(name, seed, sizes):
            with Image.open(tree / "coco" / picture.folder / picture.file_name) as image:
                for item in picture.scene.objects:
                    pixel = image.getpixel((item.column * CELL + CELL // 2, item.row * CELL + CELL // 2))
                    assert isinstance(pixel, tuple)
                    assert max(abs(a - b) for a, b in zip(pixel, COLOURS[item.colour], strict=True)) < 30
                backgrounds.add(image.getpixel((0, 0)))
            shown += 1
    assert len(backgrounds) > 400
    assert shown == len(list(tree.rglob("*.jpg"))) == 120 + 20 + 60 + 15 + 9 + 300


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
