"""The lead of an aware run over an unaware one, by the things in the picture."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from instructblip.data.sample import SCENES
from instructblip.evaluation.tables.crowding import UNAWARE, sheet, things
from instructblip.evaluation.tables.results import results
from tests.evaluation.conftest import PICTURES, Seer, World, world

__all__ = ["world"]
THING = "large red circle top left"


def run(world: World, name: str, experiment: list[str], likes: dict[str, float]) -> None:
    """VSR's eleven statements about five pictures, of which the true ones have odd numbers."""
    seer = Seer()
    seer.likes = likes
    made = World(world.data, world.run.with_name(name), seer)
    made.run.mkdir(parents=True)
    facts = {
        "experiment": experiment, "seed": 1, "model": {"random_init": True}, "paths": {"data": str(world.data)},
        "partition": {"held_in": [], "held_out": ["vsr"]},
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(facts), made.run / "config.yaml")
    made.predict("vsr")
    made.score("vsr")


def test_the_lead_is_told_apart_by_things(world: World) -> None:
    lines = [
        {"pool": "coco", "key": str(key), "text": ", ".join([THING] * (1 + key // 2)) + "."} for key in range(PICTURES)
    ]
    (world.data / SCENES).write_text("\n".join(map(json.dumps, lines)))
    yes = {"yes": -1.0, "true": -1.0, "no": -2.0, "false": -2.0}
    run(world, "aware", ["miniature"], yes)
    assert sheet(results([], world.run.parent)) is None
    run(world, "unaware", ["miniature", UNAWARE], {word: -3.0 - value for word, value in yes.items()})
    found = sheet(results([], world.run.parent))
    assert found is not None
    ((name, seeds, *cells),) = found.lines
    assert (name, seeds) == ("miniature", "1")
    # one thing: numbers 0, 1, 5, 6, 10, two of them true; two: 2, 3, 7, 8; three: 4, 9
    assert cells == ["-20.0 (5)", "+0.0 (4)", "+0.0 (2)", "", "", "", ""]
    (world.data / SCENES).unlink()
    broken = sheet(results([], world.run.parent))
    assert broken is not None and broken.lines == [] and "aware" in broken.notes[-1] and SCENES in broken.notes[-1]


@pytest.mark.parametrize(
    ("scene", "number"),
    [(f"{THING}.", 1), (f"{THING} says fox, {THING}. stripes.", 2), (f"first {THING}, {THING}. last {THING}.", 2),
     (f"{THING}, {THING}, {THING}. the word star.", 3), ("all blurred.", 0), ("nothing.", 0), ("", 0)],
)  # fmt: skip
def test_things_are_counted_in_the_words_of_a_scene(scene: str, number: int) -> None:
    assert things(scene) == number
