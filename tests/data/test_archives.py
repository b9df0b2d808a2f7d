"""Pictures in tars are read in place; nothing is extracted, and only regular members with honest names are read."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest

from instructblip.data.archives import members
from instructblip.data.media import BadMedia, RawPool
from instructblip.data.sample import MediaRef


def tar(path: Path, entries: Iterable[tuple[str, bytes, bytes]], **options: str) -> Path:
    """Entries are (name, type, content); the content of a link is where it leads."""
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content.decode()
                archive.addfile(info)
            else:
                info.size = len(content) if kind == tarfile.REGTYPE else 0
                archive.addfile(info, BytesIO(content))
    return path


def find(root: Path, relpath: str) -> bytes:
    return RawPool("web", root, ("{relpath}",)).find(MediaRef("web", "1", relpath=relpath)).read()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_tar_format_are_found(tmp_path: Path, form: int) -> None:
    names = ["000000000.jpg", "a/b/000000001.jpg", "./000000002.jpg", "n" * 99 + "/" + "m" * 90 + ".jpg"]
    entries = [(name, tarfile.REGTYPE, f"content {number}".encode()) for number, name in enumerate(names)]
    tar(tmp_path / "00000.tar", entries, format=form)  # type: ignore[arg-type]
    for name, _, content in entries:
        assert find(tmp_path, f"00000.tar/{name.removeprefix('./')}") == content


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", tarfile.SYMTYPE), ("a.jpg", tarfile.LNKTYPE), ("a.jpg", tarfile.CHRTYPE), ("a.jpg", tarfile.BLKTYPE),
        ("a.jpg", tarfile.FIFOTYPE), ("a.jpg", tarfile.DIRTYPE), ("a.jpg", tarfile.GNUTYPE_SPARSE),
    ],
)  # fmt: skip
def test_what_is_no_regular_member_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(BadMedia):
        find(tar(tmp_path / "x.tar", [(name, kind, b"secret")]).parent, f"x.tar/{name}")


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg"])
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    tar(tmp_path / "x.tar", [(name, tarfile.REGTYPE, b"hostile")])
    with pytest.raises(BadMedia, match=r"leaves the picture folder|has no member|has no picture"):
        find(tmp_path, f"x.tar/{name}")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"], "nothing is extracted"


def test_a_double_member_is_refused(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", [("a.jpg", tarfile.REGTYPE, b"one"), ("a.jpg", tarfile.REGTYPE, b"two")])
    with pytest.raises(BadMedia, match=r"has 2 members a\.jpg"):
        find(tmp_path, "x.tar/a.jpg")


def test_a_tar_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    entries = [(f"{number}.jpg", tarfile.REGTYPE, bytes(2000)) for number in range(4)]
    path = tmp_path / "x.tar"
    for cut in (0, 100, 512, 600, 2559, 2560, 3000, 3072, 5200, 5632, 6000, 7000):
        path.write_bytes(tar(tmp_path / "y.tar", entries).read_bytes()[:cut])
        members.cache_clear()
        whole = max(0, min(4, (cut - 512 - 2000) // 2560 + 1))
        for number in range(4):
            if number < whole:
                assert find(tmp_path, f"x.tar/{number}.jpg") == bytes(2000)
            else:
                with pytest.raises(BadMedia):
                    find(tmp_path, f"x.tar/{number}.jpg")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar_is_bad_media(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(BadMedia, match="has no member"):
        find(tmp_path, "x.tar/a.jpg")


def test_a_name_no_system_can_have_is_bad_media(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b.jpg", "x.tar/" + "y" * 5000):
        with pytest.raises(BadMedia):
            find(tmp_path, name)


def test_a_key_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    with pytest.raises(BadMedia, match="leaves the picture folder"):
        RawPool("web", tmp_path / "pool", ("{key}.jpg",)).find(MediaRef("web", "../secret"))
