import random
from collections import Counter
from functools import partial

from instructblip.miniature.coreference import NOTHING, OPTIONS, options, rounds
from instructblip.miniature.scenes import Role, distinct, sample

MANY = partial(sample, counts=(5, 6, 7))


def test_every_scene_can_be_talked_about_for_ten_rounds() -> None:
    kinds: Counter[str] = Counter()
    for k, scene in enumerate(distinct(400, Role.evaluation, random.Random(0), MANY)):
        dialogue = rounds(scene, 10, random.Random(k))
        assert len(dialogue) == 10
        assert dialogue[0].kind in ("look", "furthest") or dialogue[0].kind.startswith(("related to the", "nothing"))
        kinds.update(said.kind for said in dialogue)
        for said in dialogue:
            assert len(set(said.among)) == len(said.among) >= OPTIONS
            assert said.answer in said.among
    assert min(kinds.values()) > 50, kinds


def test_things_are_told_before_they_are_told_again() -> None:
    """As long as a round can tell of a thing that is new, it does."""
    repeated = 0
    for k, scene in enumerate(distinct(100, Role.evaluation, random.Random(1), MANY)):
        told = [said.told for said in rounds(scene, 10, random.Random(k)) if said.told]
        assert len(set(told)) >= min(4, len(scene.objects))
        repeated += len(told) - len(set(told))
    assert repeated < 500


def test_options_hold_the_other_things_of_the_scene() -> None:
    """Whoever looks for anything that is in the picture must choose between them."""
    (scene,) = distinct(1, Role.evaluation, random.Random(3), MANY)
    for said in rounds(scene, 10, random.Random(0)):
        offered, place = options(scene, said, random.Random(0))
        assert offered[place] == said.answer and len(set(offered)) == OPTIONS
        there = {f"a {i.size} {i.colour} {i.shape} in the {i.place}" for i in scene.objects}
        assert there & set(said.among) <= set(offered)
    assert NOTHING not in offered or said.kind in ("nothing", "related to it", "related to the")
