"""A clip as N uniformly spaced frames: the one on the screen at the centre of each of N equal parts of its time.

Frame i of N is what a player shows at (i + 1/2) / N of the clip; at a constant rate, frame floor((i + 1/2) F / N) of
F. A clip of fewer frames repeats them. Stored as JPEG under `<key>-<i>of<N>`. Only N frames are ever in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from instructblip.data.media import MAX_PIXELS, BadMedia, Place
from instructblip.data.sample import MediaRef, Sample

QUALITY = 95  # ours: of the stored JPEGs, colours at full resolution
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"  # playlists could name other files
WHOLE = 0.9  # share of the frames or seconds promised by a file's header that must be there
ROUNDING = 0.1  # of a frame's time: stored times are rounded


def frame_keys(key: str, count: int) -> list[str]:
    """Keys of a clip's frames, in order."""
    return [f"{key}-{number}of{count}" for number in range(count)]


def stored_keys(ref: MediaRef, count: int) -> list[str]:
    """The keys a picture or clip is stored under."""
    return frame_keys(ref.key, count) if ref.kind == "video" else [ref.key]


def with_frames(sample: Sample, count: int) -> Sample:
    """The Sample with each clip replaced by its frames, in order."""
    if all(ref.kind == "image" for ref in sample.media):
        return sample
    media = [replace(ref, key=key, kind="image") for ref in sample.media for key in stored_keys(ref, count)]
    return replace(sample, media=tuple(media))


def require_decoder() -> None:
    """Raises ValueError when PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ValueError("clips need PyAV to be decoded: pip install 'instructblip[video]'") from error


def frames(place: Place, count: int) -> list[bytes]:
    """`count` JPEGs of a clip, read twice: for its times, for its pictures.

    Raises BadMedia for what is no clip, holds no picture, or is cut short.
    """
    import av

    try:
        with place.file.open("rb") if place.length is None else BytesIO(place.read()) as stream:
            times, stored = _times(stream)
            stream.seek(0)
            return _shown_at(stream, _moments(times, count), stored)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadMedia(str(place.file), f"clip cannot be decoded ({error})") from error


def _open(stream: Any) -> Any:
    """The container and its first video stream, decoded by one thread, never by following what a file names."""
    import av

    container = av.open(stream, options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})
    if not container.streams.video:
        container.close()
        raise BadMedia("clip", "has no video stream")
    if container.streams.video[0].codec_context is None:  # of which PyAV knows neither width nor height
        container.close()
        raise BadMedia("clip", "has a video stream that nothing here decodes")
    container.streams.video[0].thread_count = 1
    return container


def _times(stream: Any) -> tuple[NDArray[np.int64], bool]:
    """(F,) when each frame begins, in ticks of the stream, and True; 0..F-1 and False where not all have a time."""
    times: list[int | None] = []
    seconds = 0.0
    with _open(stream) as container:
        video = container.streams.video[0]
        if video.width * video.height > MAX_PIXELS:
            raise BadMedia("clip", f"{video.width}x{video.height} is over {MAX_PIXELS:,} pixels")
        for packet in container.demux():
            if packet.pts is not None:
                seconds = max(seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is video and packet.size:
                times.append(packet.pts)
        promised = (container.duration or 0) / 1_000_000
        seconds -= (container.start_time or 0) / 1_000_000
        if not times:
            raise BadMedia("clip", "has no frames")
        if len(times) < WHOLE * video.frames or seconds < WHOLE * promised:
            raise BadMedia("clip", f"is cut short: {seconds:.1f} of {promised:.1f} seconds are there")
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return np.arange(len(times)), False
    return np.sort(np.array(known, dtype=np.int64)), True


def _moments(times: NDArray[np.int64], count: int) -> list[float]:
    """The centres of `count` equal parts of the clip, the last frame being shown for the mean time of a frame."""
    first, last = int(times[0]), int(times[-1])
    step = (last - first) / max(len(times) - 1, 1)
    return [first + (number + 0.5) / count * (last - first + step) + ROUNDING * step for number in range(count)]


def _shown_at(stream: Any, moments: Sequence[float], stored: bool) -> list[bytes]:
    """The frame on the screen at each moment: the last that begins before it."""
    shown: list[bytes] = []
    before = None
    with _open(stream) as container:
        for number, frame in enumerate(container.decode(container.streams.video[0])):
            begins = number if not stored or frame.pts is None else frame.pts
            while before is not None and len(shown) < len(moments) and moments[len(shown)] < begins:
                shown.append(_jpeg(before))
            before = frame
            if len(shown) == len(moments):
                break
    if before is None:
        raise BadMedia("clip", "no frame can be decoded")
    return shown + [_jpeg(before)] * (len(moments) - len(shown))


def _jpeg(frame: Any) -> bytes:
    rgb = np.ascontiguousarray(frame.to_ndarray(format="rgb24"))  # (H, W, 3)
    return simplejpeg.encode_jpeg(rgb, quality=QUALITY, colorsubsampling="444")
