from __future__ import annotations

from instructblip.evaluation.answered import left
from instructblip.evaluation.subject import Subject

from .conftest import World


def test_what_has_its_score_is_left_out_when_only_the_missing_is_asked(world: World) -> None:
    asked = Subject("one", world.run, str(world.data), None)
    recipes = [world.trials("vsr"), world.trials("vqav2")]
    assert left(recipes, asked, world.config()) == recipes
    world.predict("vsr")
    assert left(recipes, asked, world.config(missing=True)) == recipes  # predicted is not scored
    world.score("vsr")
    assert left(recipes, asked, world.config(missing=True)) == recipes[1:]
    assert left(recipes, asked, world.config(missing=True, constant=True)) == recipes  # a control has its own
