import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from instructblip.miniature.drawing import Background, Look, render
from instructblip.miniature.font import pixels
from instructblip.miniature.scenes import (
    CELL,
    COLOURS,
    PAIRS,
    SHAPES,
    SIDE,
    SIZES,
    WITHHELD,
    WORDS,
    Domain,
    Object,
    Role,
    Scene,
    distinct,
    sample,
)

FILL = {
    "square": 1.0,
    "circle": 0.785,
    "triangle": 0.5,
    "star": 0.37,
}  # share of the bounding box, by geometry


def jpeg(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return Image.open(buffer).convert("RGB")


def nearest_colour(image: Image.Image, cell: int) -> str:
    pixel = image.getpixel((cell % 3 * CELL + CELL // 2, cell // 3 * CELL + CELL // 2))
    assert isinstance(pixel, tuple)
    known = COLOURS | {"background": (215, 215, 215)}
    return min(known, key=lambda name: sum((a - b) ** 2 for a, b in zip(pixel, known[name], strict=True)))


def saturation(image: Image.Image, cell: int) -> Image.Image:
    left, top = cell % 3 * CELL, cell // 3 * CELL
    return image.crop((left, top, left + CELL, top + CELL)).convert("HSV").getchannel("S")


def difference(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).sum)


def test_every_cell_shows_its_colour_or_the_background(scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        image = jpeg(render(scene, random.Random(i)))
        assert image.size == (SIDE, SIDE)
        shown = [nearest_colour(image, cell) for cell in range(9)]
        there = {item.cell: item.colour for item in scene.objects}
        assert shown == [there.get(cell, "background") for cell in range(9)]


def test_shapes_can_be_told_apart_wherever_in_the_cell_they_lie(scenes: list[Scene]) -> None:
    """By the nearest of twelve other drawings of each shape in the same colour and size."""
    drawn: dict[tuple[str, str], list[tuple[str, Image.Image]]] = defaultdict(list)
    for shape, colour, size, look in product(SHAPES, COLOURS, SIZES, range(12)):
        picture = render(Scene((Object(shape, colour, size, 4),)), random.Random(f"reference/{look}"))
        drawn[colour, size].append((shape, saturation(picture, 4)))
    right = []
    for i, scene in enumerate(scenes[:100]):
        image = jpeg(render(scene, random.Random(i)))
        for item in scene.objects:
            seen = saturation(image, item.cell)
            nearest = min(drawn[item.colour, item.size], key=lambda known: difference(seen, known[1]))
            right.append(item.shape == nearest[0])
    assert sum(right) / len(right) > 0.97


def test_a_scene_looks_different_under_another_generator() -> None:
    scene = Scene((Object("star", "red", "large", 4),))
    assert render(scene, random.Random(0)).tobytes() == render(scene, random.Random(0)).tobytes()
    assert render(scene, random.Random(0)).tobytes() != render(scene, random.Random(1)).tobytes()


def test_a_flip_makes_left_and_right_false() -> None:
    scene = Scene((Object("circle", "red", "large", 3), Object("square", "blue", "large", 5)))
    image = render(scene, random.Random(0))
    assert [nearest_colour(image, cell) for cell in (3, 5)] == ["red", "blue"]
    assert [nearest_colour(ImageOps.mirror(image), cell) for cell in (3, 5)] == ["blue", "red"]


def test_identity_is_the_content_and_not_the_order() -> None:
    red, blue = Object("circle", "red", "large", 3), Object("square", "blue", "large", 5)
    assert Scene((red, blue)).identity == Scene((blue, red)).identity
    assert Scene((red, blue)).identity != Scene((red,)).identity


def test_identity_of_a_scene_without_words_is_that_of_its_shapes() -> None:
    """A printed word makes another scene; none leaves the identity that a scene always had."""
    plain = Scene((Object("circle", "red", "large", 3),))
    assert plain.identity == hashlib.sha256(b"circle,red,large,3").hexdigest()
    assert Scene((Object("circle", "red", "large", 3, "cat"),)).identity != plain.identity


def read_word(image: Image.Image, cell: int, known: Sequence[str]) -> str:
    """The word whose template agrees with most pixels of the cell's lower rows; letters are the darkest."""
    left, top = cell % 3 * CELL, cell // 3 * CELL
    ink = {
        (x, y)
        for x in range(CELL)
        for y in range(CELL)
        if sum(image.convert("RGB").getpixel((left + x, top + y))) < 150  # type: ignore[arg-type]
    }
    return min(known, key=lambda word: len(ink ^ template(word)))


def template(word: str) -> set[tuple[int, int]]:
    """Of a word set in the middle of a cell, a pixel above its lower edge."""
    width = 4 * len(word) - 1
    return {(int(8 - width / 2) + x, 10 + y) for x, y in pixels(word)}


def test_every_printed_word_can_be_read_and_no_other_is_there() -> None:
    printed = distinct(150, Role.tuning, random.Random(5), partial(sample, words=(1, 2, 3)))
    for i, scene in enumerate(printed):
        image = jpeg(render(scene, random.Random(i)))
        for item in scene.objects:
            assert read_word(image, item.cell, ["", *WORDS]) == item.word
    assert len({item.word for scene in printed for item in scene.objects}) == len(WORDS) + 1


def test_words_differ_in_more_than_a_pixel() -> None:
    assert all(len(template(one) ^ template(other)) > 2 for one, other in combinations(WORDS, 2))


def shades(image: Image.Image) -> int:
    return len(image.getcolors(SIDE**2) or ())


def test_an_outline_is_not_filled() -> None:
    scene = Scene((Object("square", "red", "large", 4),))
    filled, outline = (render(scene, random.Random(0), Look(outline=outline)) for outline in (False, True))
    assert nearest_colour(filled, 4) == "red"
    assert nearest_colour(outline, 4) == "background"
    assert np.asarray(saturation(outline, 4)).max() > 150


def test_stripes_are_two_greys() -> None:
    assert shades(render(Scene(()), random.Random(0), Look(background=Background.striped))) == 2
    assert shades(render(Scene(()), random.Random(0))) == 1


def test_a_crop_shows_a_corner_and_blur_hides_everything() -> None:
    scene = Scene((Object("circle", "red", "large", 0), Object("square", "blue", "large", 8)))
    shown = render(scene, random.Random(0), Look(crop=(0, 0)))
    assert nearest_colour(shown.resize((2 * SIDE, 2 * SIDE)).crop((0, 0, SIDE, SIDE)), 4) == "red"
    channels = np.asarray(shown).astype(int)
    assert (channels[..., 2] - channels[..., 0]).max() < 60, "the blue square lies outside"
    hopeless = np.asarray(render(scene, random.Random(0), Look(blur=12))).astype(int)
    assert np.abs(hopeless - hopeless[SIDE // 2, SIDE // 2]).mean() < 12


def test_near_domain_has_one_withheld_pair() -> None:
    for domain in Domain:
        for scene in distinct(
            60, Role.evaluation, random.Random(2), partial(sample, counts=(2, 3, 4), domains=(domain,))
        ):
            new = sum((item.shape, item.colour) in WITHHELD for item in scene.objects)
            assert scene.domain is domain
            assert new == {Domain.inside: 0, Domain.near: 1, Domain.outside: len(scene.objects)}[domain]


def test_roles_share_the_buckets_without_overlap() -> None:
    assert sorted(bucket for role in Role for bucket in role.value) == list(range(100))


@pytest.mark.parametrize("role", list(Role))
def test_scenes_of_a_role_are_distinct_and_well_formed(role: Role) -> None:
    found = distinct(300, role, random.Random(1))
    assert len({scene.identity for scene in found}) == 300
    for scene in found:
        assert scene.role is role
        assert 1 <= len(scene.objects) <= 4
        assert len({item.cell for item in scene.objects}) == len(scene.objects)
        assert len({item.name for item in scene.objects}) == len(scene.objects)


def test_withheld_pairs_are_never_sampled_and_all_others_are(scenes: list[Scene]) -> None:
    seen = {(item.shape, item.colour) for scene in scenes for item in scene.objects}
    assert not seen & set(WITHHELD)
    assert seen == set(PAIRS)
