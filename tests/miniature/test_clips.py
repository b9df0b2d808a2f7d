import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from instructblip.miniature.clips import CODECS, PHASES, Clip, clips, encode, frames
from instructblip.miniature.scenes import Object, Role, Scene, sample

RED, BLUE = Object("circle", "red", "large", 0), Object("square", "blue", "small", 8)


def test_only_the_mover_changes() -> None:
    shown = [np.asarray(frame).astype(int) for frame in frames(Clip(Scene((RED, BLUE)), RED, 2), random.Random(0))]
    assert len(shown) == len(PHASES)
    changed = np.abs(np.diff(shown, axis=0)).max(axis=(0, 3)) > 0
    assert changed[:16].any() and not changed[20:].any(), "the red circle is in the top row"
    assert not np.abs(shown[0] - shown[1]).any() and not np.abs(shown[-1] - shown[-2]).any(), "both ends are held"


def test_a_clip_without_a_mover_is_still() -> None:
    shown = [frame.tobytes() for frame in frames(Clip(Scene((RED, BLUE))), random.Random(0))]
    assert len(shown) == len(PHASES) and len(set(shown)) == 1


def test_nothing_moves_through_another_thing() -> None:
    for clip in clips(100, Role.evaluation, random.Random(2), partial(sample, counts=(4, 5))):
        assert clip.mover
        step = {"left": -1, "right": 1, "up": -3, "down": 3}[clip.direction]
        path = range(clip.mover.cell + step, clip.cell + step, step)
        assert not {item.cell for item in clip.before.objects} & set(path)
        assert clip.after.role is Role.evaluation


@pytest.mark.parametrize("suffix", CODECS)
def test_the_same_clip_has_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    shown = frames(Clip(Scene((RED, BLUE)), RED, 2), random.Random(0))
    for name in ("one", "two"):
        encode(tmp_path / f"{name}{suffix}", shown)
    encode(tmp_path / f"other{suffix}", shown[::-1])
    one, two, other = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other
