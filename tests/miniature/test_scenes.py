import random
from collections import defaultdict
from io import BytesIO
from itertools import product

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from instructblip.miniature.drawing import render
from instructblip.miniature.scenes import (
    CELL,
    COLOURS,
    PAIRS,
    SHAPES,
    SIDE,
    SIZES,
    WITHHELD,
    Object,
    Role,
    Scene,
    distinct,
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
    assert not seen & WITHHELD
    assert seen == set(PAIRS)
