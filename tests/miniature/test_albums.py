"""Who may see what: scenes of roles, withheld pairs, ids of pools, and the table of programs."""

from collections import defaultdict

from omegaconf import OmegaConf

from instructblip.miniature.albums import ALBUMS, Picture
from instructblip.miniature.design import ALIGNMENT, HELD_IN, HELD_OUT, PROGRAMS_OF
from instructblip.miniature.scenes import WITHHELD, Role
from instructblip.recipes import RECIPES

HELD_IN_EVALUATED = {"coco_test", "coco_test2015", "textvqa_val", "textvqa_test", "books_test"}


def test_scenes_of_roles_are_disjoint(albums: dict[str, list[Picture]]) -> None:
    scenes: dict[Role, set[str]] = defaultdict(set)
    for name, album in albums.items():
        identities = [picture.scene.identity for picture in album]
        assert len(set(identities)) == len(identities), name
        assert {picture.scene.role for picture in album} == {ALBUMS[name].role}
        scenes[ALBUMS[name].role].update(identities)
    assert {Role.tuning, Role.selection, Role.evaluation} == set(scenes)
    assert sum(map(len, scenes.values())) == len(set().union(*scenes.values()))


def test_what_is_tuned_on_and_evaluated_has_the_role_of_its_name() -> None:
    for name, album in ALBUMS.items():
        split = name.rsplit("_", 1)[-1]
        if split in ("train", "restval") or name.startswith("web"):
            assert album.role is Role.tuning, name
        if split.startswith("test") or name in HELD_IN_EVALUATED:
            assert album.role is Role.evaluation, name


def test_ids_of_a_pool_are_disjoint(albums: dict[str, list[Picture]]) -> None:
    for pool in {album.pool for album in ALBUMS.values()}:
        files = [picture.file for name, album in albums.items() if ALBUMS[name].pool == pool for picture in album]
        assert len(set(files)) == len(files), pool
    ids = [album.ids for album in ALBUMS.values() if album.pool == "coco"]
    assert sum(map(len, ids)) == len(set().union(*ids))
    assert all(picture.id in ALBUMS[name].ids for name, album in albums.items() for picture in album)
    assert all(identity >= 600_000 for identities in ids for identity in (identities[0],))


def test_withheld_pairs_are_in_pictures_of_nocaps_alone(albums: dict[str, list[Picture]]) -> None:
    assert {name for name, entry in PROGRAMS_OF.items() if entry.withheld} == {"nocaps"}
    for name, album in albums.items():
        shown = {(item.shape, item.colour) for picture in album for item in picture.scene.objects}
        assert bool(shown & set(WITHHELD)) == name.startswith("nocaps"), name


def test_held_out_programs_are_asked_nowhere_else() -> None:
    partition = OmegaConf.load(RECIPES.parent / "conf/partition/paper.yaml")
    assert set(HELD_IN) == set(partition.held_in)
    assert set(HELD_OUT) == set(partition.held_out)
    tuned = frozenset().union(*(entry.programs for entry in HELD_IN.values()), ALIGNMENT)
    for name, entry in HELD_OUT.items():
        assert entry.programs
        assert not entry.programs & tuned, name


def test_a_vqg_set_asks_what_its_parent_asks() -> None:
    for parent in ("vqav2", "okvqa", "aokvqa"):
        assert PROGRAMS_OF[f"{parent}_vqg"] == PROGRAMS_OF[parent]
