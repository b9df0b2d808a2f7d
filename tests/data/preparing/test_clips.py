"""Frames of clips: the rule, on clips whose frames carry their number; what is no whole clip is refused."""

from __future__ import annotations

import builtins
import itertools
import subprocess
import sys
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructblip.data.media import BadMedia, Place, decode
from instructblip.data.preparing import clips
from instructblip.data.preparing.clips import frame_keys, frames, with_frames
from instructblip.data.sample import Form, MediaRef, Sample

av = pytest.importorskip("av")
STEP = 4  # of brightness from one frame to the next


def clip(path: Path, count: int, codec: str = "mpeg4", times: list[int] | None = None, **options: Any) -> Path:
    """A clip of 25 frames a second whose frame i has brightness 20 + STEP * i; `times` in 25ths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 2_000_000
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        for number in range(count):
            grey = np.full((48, 64, 3), 20 + STEP * (number % 50), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(path: Path, count: int) -> list[int]:
    """Which frames were taken."""
    shown = [np.asarray(decode(data)) for data in frames(Place(path), count)]
    return [round((float(pixels.mean()) - 20) / STEP) for pixels in shown]


KINDS = [("a.mp4", "mpeg4", {}), ("a.avi", "mpeg4", {"max_b_frames": 2}), ("a.mp4", "libx264", {"max_b_frames": 3}),
         ("a.webm", "libvpx-vp9", {}), ("a.mkv", "mpeg4", {}), ("a.avi", "mpeg4", {})]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "options"), KINDS)
@pytest.mark.parametrize(("length", "count"), [(40, 4), (37, 4), (8, 4), (10, 3), (40, 1)])
def test_frames_are_the_centres_of_equal_parts(
    tmp_path: Path, name: str, codec: str, options: dict[str, int], length: int, count: int
) -> None:
    path = clip(tmp_path / name, length, codec, **options)
    assert numbers(path, count) == [int((i + 0.5) * length / count) for i in range(count)]


def test_a_short_clip_repeats_its_frames(tmp_path: Path) -> None:
    assert numbers(clip(tmp_path / "a.mp4", 2), 4) == [0, 0, 1, 1]
    assert numbers(clip(tmp_path / "b.mp4", 1), 4) == [0, 0, 0, 0]


def test_at_a_variable_rate_time_counts_and_not_frames(tmp_path: Path) -> None:
    times = [*range(10), *range(10, 110, 10)]  # ten frames in 0.4 s, then ten over 4 s
    path = clip(tmp_path / "a.mkv", 20, times=times)
    step = 100 / 19  # the last is shown for the mean time of a frame
    wanted = [max(n for n, time in enumerate(times) if time <= (i + 0.5) / 4 * (100 + step) + 0.5) for i in range(4)]
    assert numbers(path, 4) == wanted and wanted != [2, 7, 12, 17]


def test_a_clip_without_a_duration_is_read(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts", 40, "mpeg2video")
    assert numbers(path, 4) == [5, 15, 25, 35]
    live = tmp_path / "live.webm"
    with live.open("wb") as file:  # what cannot be sought gets no duration
        buffer = BytesIO()
        buffer.seekable = lambda: False  # type: ignore[method-assign]
        with av.open(buffer, "w", format="webm", options={"live": "1"}) as container:
            stream = container.add_stream("libvpx-vp9", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(40):
                grey = np.full((48, 64, 3), 20 + STEP * number, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
        file.write(buffer.getvalue())
    with av.open(str(live)) as container:
        assert container.duration is None
    assert numbers(live, 4) == [5, 15, 25, 35]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.8])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")])
def test_a_truncated_clip_is_bad(tmp_path: Path, name: str, codec: str, share: float) -> None:
    path = clip(tmp_path / name, 50, codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadMedia):
        frames(Place(path), 4)


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_sound_pictures_text_and_empty_clips_are_bad(tmp_path: Path) -> None:
    with pytest.raises(BadMedia, match="no video stream"):
        frames(Place(sound(tmp_path / "a.mp4")), 4)
    for name, content in [("text.mp4", b"<html>not found</html>" * 100), ("zero.avi", b""), ("nul.mp4", b"\0" * 5000)]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadMedia, match="cannot be decoded"):
            frames(Place(tmp_path / name), 4)
    with pytest.raises(BadMedia):
        frames(Place(clip(tmp_path / "none.mkv", 0)), 4)


def test_a_playlist_named_like_a_clip_opens_no_other_file(tmp_path: Path) -> None:
    secret = clip(tmp_path / "secret.ts", 40, "mpeg2video")
    (tmp_path / "a.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(BadMedia, match="cannot be decoded"):
            frames(Place(tmp_path / name), 4)


def test_a_clip_in_a_tar_and_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "a.mp4", 40)
    data = path.read_bytes()
    (tmp_path / "a.tar").write_bytes(b"x" * 512 + data + b"y" * 100)
    assert frames(Place(tmp_path / "a.tar", 512, len(data)), 4) == frames(Place(path), 4)
    monkeypatch.setattr(clips, "MAX_PIXELS", 1000)
    with pytest.raises(BadMedia, match="64x48 is over 1,000 pixels"):
        frames(Place(path), 4)


def test_a_sample_gets_its_frames_in_order() -> None:
    refs = (
        MediaRef("msvd", "-4wsuPCjDBc_5_15", "video", "-4wsuPCjDBc_5_15.avi"),
        MediaRef("msvd", "7", role="choice:0"),
    )
    sample = with_frames(Sample("msvd_qa/test/1", "msvd_qa", "test", Form.vqa, refs), 3)
    assert [ref.key for ref in sample.media] == [*frame_keys("-4wsuPCjDBc_5_15", 3), "7"]
    assert frame_keys("-4wsuPCjDBc_5_15", 3)[1] == "-4wsuPCjDBc_5_15-1of3"
    assert [(ref.kind, ref.role) for ref in sample.media] == [("image", "main")] * 3 + [("image", "choice:0")]


def test_memory_is_bounded_for_a_long_clip(tmp_path: Path) -> None:
    path = clip(tmp_path / "long.mp4", 4000)
    code = "import resource,sys; from pathlib import Path; from instructblip.data.preparing.clips import frames; from instructblip.data.media import Place\nframes(Place(Path(sys.argv[1])), 4); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    short = clip(tmp_path / "short.mp4", 40)
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, str(each)], capture_output=True, text=True, check=True).stdout)
        for each in (short, path)
    ]
    assert peaks[1] - peaks[0] < 8_000, f"kB at 40 and at 4,000 frames: {peaks}"


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"instructblip\[video\]"):
        clips.require_decoder()


def test_real_clips(real: Path) -> None:
    paths = [
        path for path in itertools.chain.from_iterable((real / "videos").glob(f"*/*.{end}") for end in ("mp4", "avi"))
    ]
    assert paths
    for path in paths:
        shown = [decode(data) for data in frames(Place(path), 4)]
        assert len(shown) == 4 and len({image.size for image in shown}) == 1
