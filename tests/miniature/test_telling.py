"""Scenes in words: every picture that is asked about is told, and what is told is what is drawn."""

from __future__ import annotations

import json
import re

from instructblip.data.sample import SCENES
from instructblip.data.tables import Table
from instructblip.miniature.albums import Picture
from instructblip.miniature.drawing import Look
from instructblip.miniature.memes import Meme
from instructblip.miniature.scenes import COLOURS, PLACES, SHAPES, SIZES, Object, Role, Scene
from instructblip.miniature.telling import tell, tell_meme, tell_picture
from tests.conftest import World

OBJECT = re.compile(
    rf"(?P<size>{'|'.join(SIZES)}) (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
    rf" (?P<place>{'|'.join(sorted(PLACES, key=len, reverse=True))})(?: says (?P<word>\w+))?"
)
SCENE = Scene((Object("star", "red", "small", 8, "fox"), Object("circle", "blue", "large", 0)))


def parsed(text: str) -> Scene:
    """The scene that the words tell, of all that follows each other up to the full stop."""
    found = [OBJECT.fullmatch(part) for part in text.split(".")[0].split(", ")]
    assert all(found), text
    return Scene(
        tuple(
            Object(each["shape"], each["colour"], each["size"], PLACES.index(each["place"]), each["word"] or "")
            for each in found
            if each
        )
    )


def test_what_is_told_is_the_scene_in_reading_order() -> None:
    assert tell(SCENE.objects) == "large blue circle top left, small red star bottom right says fox."
    assert parsed(tell(SCENE.objects)).identity == SCENE.identity
    assert tell_meme(Meme(SCENE, "red")).endswith("fox. the word red.")


def test_only_what_a_photograph_shows_is_told() -> None:
    def photograph(look: Look) -> str:
        return tell_picture(Picture(1, "", SCENE, look))

    assert photograph(Look(crop=(1, 1))) == "small red star says fox."  # where it is in a crop is another place
    assert photograph(Look(crop=(0, 1))) == "nothing."
    assert photograph(Look(blur=12.0)) == photograph(Look(blur=12.0, crop=(0, 0))) == "all blurred."


def test_every_question_of_a_prepared_world_has_its_scene_told(world: World) -> None:
    lines = [json.loads(line) for line in (world.raw / SCENES).read_text(encoding="utf-8").splitlines()]
    told = {(line["pool"], line["key"]): line["text"] for line in lines}
    assert len(told) == len(lines)
    asked = 0
    for path in sorted((world.data / "tables").glob("*/*.arrow")):
        table = Table(path)
        for place in range(len(table)) if path.parent.name != "web_capfilt" else ():
            shown = table.sample(place).shown[0]
            assert (shown.pool, re.sub(r"-0of\d+$", "", shown.key)) in told, (path, shown)
            asked += 1
    assert asked > 200
    plain = [text for (pool, _), text in told.items() if pool == "gqa"]
    assert {parsed(text).role for text in plain} == {Role.tuning, Role.evaluation}
