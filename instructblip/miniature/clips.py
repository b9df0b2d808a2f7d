"""Clips: a still scene in which one thing moves along its row or column, or none does.

What is asked of them needs more than one frame: what moves, which way, and where it was before or is after.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from instructblip.miniature.drawing import SHADE, SHIFT, SUPERSAMPLING, backdrop, draw_object, near
from instructblip.miniature.programs import Question
from instructblip.miniature.scenes import CELL, COLOURS, GRID, SIDE, Draw, Object, Role, Scene, distinct

PHASES = (0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0)  # of the way, frame by frame: both ends can be seen
FRAMES_PER_SECOND = 4
SECONDS = len(PHASES) // FRAMES_PER_SECOND
CODECS = {  # full chroma: at 48 pixels subsampled colours would bleed
    ".avi": ("mjpeg", "yuvj444p", {"qmin": "2", "qmax": "2"}),
    ".mp4": ("libx264", "yuv444p", {"crf": "12", "preset": "veryfast"}),
    ".webm": (
        "libvpx-vp9",
        "yuv444p",
        {"crf": "12", "b": "0", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    ),
}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")


@dataclass(frozen=True)
class Clip:
    before: Scene
    mover: Object | None = None
    cell: int = 0  # where the mover ends

    @property
    def moved(self) -> Object:
        assert self.mover
        return replace(self.mover, cell=self.cell)

    @property
    def after(self) -> Scene:
        moved = [self.moved if item == self.mover else item for item in self.before.objects]
        return Scene(tuple(moved))

    @property
    def direction(self) -> str:
        assert self.mover
        if self.moved.row == self.mover.row:
            return "right" if self.moved.column > self.mover.column else "left"
        return "down" if self.moved.row > self.mover.row else "up"


def clips(number: int, role: Role, rng: random.Random, draw: Draw) -> list[Clip]:
    """Each begins and ends with a scene of the role; directions are as balanced as the scenes allow."""
    made: list[Clip] = []
    directions: Counter[str] = Counter()
    for scene in distinct(3 * number + 10, role, rng, draw):
        possible = [clip for clip in moves(scene) if clip.after.role is role]
        if possible and len(made) < number:
            rng.shuffle(possible)
            made.append(min(possible, key=lambda clip: directions[clip.direction]))
            directions[made[-1].direction] += 1
    assert len(made) == number
    return made


def moves(scene: Scene) -> list[Clip]:
    """Along a row or a column, over free cells alone."""
    taken = {item.cell for item in scene.objects}
    found = []
    for item in scene.objects:
        for step, room in (
            (-1, item.column),
            (1, GRID - 1 - item.column),
            (-GRID, item.row),
            (GRID, GRID - 1 - item.row),
        ):
            for cell in (item.cell + step * k for k in range(1, room + 1)):
                if cell in taken:
                    break
                found.append(Clip(scene, item, cell))
    return found


def what_moves(clip: Clip) -> list[Question]:
    thing = clip.moved
    return [Question("what shape is moving?", thing.shape), Question("what color is the moving shape?", thing.colour)]


def direction(clip: Clip) -> list[Question]:
    return [Question(f"which way does the {clip.moved.name} move?", clip.direction)]


def before_after(clip: Clip) -> list[Question]:
    """The column of what moves along a row, the row of what moves along a column."""
    asked = []
    for item, when in ((clip.mover, "at first"), (clip.moved, "at the end")):
        assert item
        sideways = clip.direction in ("left", "right")
        line, answer = ("column", COLUMNS[item.column]) if sideways else ("row", ROWS[item.row])
        asked.append(Question(f"in which {line} is the {item.name} {when}?", answer))
    return asked


PROGRAMS = {"what-moves": what_moves, "direction": direction, "before-after": before_after}


def frames(clip: Clip, rng: random.Random) -> list[Image.Image]:
    """RGB pictures of SIDE x SIDE pixels. What has no meaning is drawn once, so that only the mover changes."""
    canvas = backdrop(rng)
    looks = {item: (near(COLOURS[item.colour], SHADE, rng), _shift(rng), _shift(rng)) for item in clip.before.objects}

    def place(canvas: Image.Image, item: Object, column: float, row: float) -> Image.Image:
        colour, across, down = looks[item]
        draw_object(canvas, item, (column + 0.5) * CELL + across, (row + 0.5) * CELL + down, colour)
        return canvas

    for item in clip.before.objects:
        if item != clip.mover:
            place(canvas, item, item.column, item.row)
    if not clip.mover:
        return [canvas] * len(PHASES)
    start, end = clip.mover, clip.moved
    return [
        place(
            canvas.copy(), start, start.column + t * (end.column - start.column), start.row + t * (end.row - start.row)
        )
        for t in PHASES
    ]


def _shift(rng: random.Random) -> float:
    return rng.randint(-SHIFT, SHIFT) / SUPERSAMPLING


def encode(file: Path, pictures: list[Image.Image]) -> None:
    """A clip in the container its suffix names. One thread and no dates: the same pictures give the same bytes."""
    import av  # the extra `video`, which only these files need

    codec, pixels, options = CODECS[file.suffix]
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, FRAMES_PER_SECOND, {**options, "flags": "+bitexact", "threads": "1"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
