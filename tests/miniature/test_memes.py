import random
from itertools import pairwise

import pytest

from instructblip.miniature.memes import Meme, draw, draw_things, memes
from instructblip.miniature.scenes import Object, Role, Scene, distinct

SCENE = Scene((Object("circle", "red", "large", 0), Object("star", "green", "small", 4)))


@pytest.mark.parametrize(("word", "label"), [("red", 0), ("star", 0), ("blue", 1), ("square", 1)])
def test_the_label_says_that_the_word_contradicts_the_picture(word: str, label: int) -> None:
    assert Meme(SCENE, word).label == label


def test_the_word_has_its_row_for_itself() -> None:
    assert all(item.cell < 6 for k in range(50) for item in draw_things(random.Random(k)).objects)
    with_word, without = (draw(Meme(SCENE, word), random.Random(0)) for word in ("triangle", ""))
    assert with_word.crop((0, 0, 48, 36)).tobytes() == without.crop((0, 0, 48, 36)).tobytes()
    assert with_word.tobytes() != without.tobytes()


def test_both_memes_of_a_scene_are_apart() -> None:
    """Neighbours in the file would tell that the second has the other label."""
    made = memes(distinct(100, Role.tuning, random.Random(0), draw_things), random.Random(0))
    together = sum(one.scene == two.scene for one, two in pairwise(made))
    assert together < 8
