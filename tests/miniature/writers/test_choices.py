"""IconQA, Hateful Memes and VSR: true of the scenes, and not to be guessed without looking."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from instructblip.miniature.font import pixels
from instructblip.miniature.scenes import CELL, COLOURS, Role, Scene
from instructblip.miniature.world import World
from instructblip.miniature.writers.choices import hateful_memes, iconqa
from tests.miniature.writers.test_reasoning import beyond

Load = Callable[[str], Any]
MEME_SPLITS = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")


def icon_answer(question: str, scene: Scene) -> str:
    shapes = Counter(item.shape for item in scene.objects)
    colours = Counter(item.colour for item in scene.objects)
    if question == "How many shapes are there?":
        return str(len(scene.objects))
    if match := re.fullmatch(r"How many (\w+)s are there\?", question):
        return str(shapes[match[1]])
    if match := re.fullmatch(r"Are there more (\w+)s than (\w+)s\?", question):
        return "yes" if shapes[match[1]] > shapes[match[2]] else "no"
    match = re.fullmatch(r"Which (shape|color) is there most of\?", question)
    assert match, question
    (first, most), *others = (shapes if match[1] == "shape" else colours).most_common()
    assert all(number < most for _, number in others)
    return first


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_icons_are_counted_and_compared_truly(written: Path, load: Load, world: World, split: str) -> None:
    root = written / "iconqa/iconqa_data/iconqa" / split
    listed = load("iconqa/iconqa_data/pid_splits.json")
    problems = iconqa(world, split)
    assert sorted(folder.name for folder in root.glob("*/*")) == sorted(problem.pid for problem in problems)
    for problem in problems:
        kind = problem.row["ques_type"]
        row = load(f"iconqa/iconqa_data/iconqa/{split}/{kind}/{problem.pid}/data.json")
        assert problem.pid in listed[f"{kind}_{split}"]
        scene, *options = problem.scenes
        if kind == "choose_txt":
            assert row["choices"][row["answer"]] == icon_answer(row["question"], scene)
            assert 2 <= len(row["choices"]) == len(set(row["choices"])) <= 5
        elif kind == "fill_in_blank":
            assert row["answer"] == icon_answer(row["question"], scene) and "choices" not in row
        else:
            right = [k for k, option in enumerate(options) if len(option.objects) == len(scene.objects)]
            assert right == [row["answer"]] and len(options) == len(row["choices"])
            assert all((root / kind / problem.pid / name).is_file() for name in row["choices"])


def test_icons_lie_on_nothing(written: Path, world: World) -> None:
    for problem in iconqa(world, "val"):
        folder = written / "iconqa/iconqa_data/iconqa/val" / problem.row["ques_type"] / problem.pid
        with Image.open(folder / "image.png") as image:
            assert image.mode == "RGBA" and image.size == (48, 48)
            assert image.getpixel((0, 0)) == (0, 0, 0, 0)
            white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        for item in problem.scenes[0].objects:
            left, top = item.cell % 3 * CELL, item.cell // 3 * CELL
            ink = (
                255 - np.asarray(white.crop((left, top, left + CELL, top + CELL))).reshape(-1, 3).sum(axis=0) / CELL**2
            )
            inks = {name: 255.0 - np.array(colour) for name, colour in COLOURS.items()}
            likeness = {name: ink @ known / np.linalg.norm(known) for name, known in inks.items()}
            assert max(likeness, key=lambda name: likeness[name]) == item.colour


def test_memes_are_labelled_by_the_rule(written: Path, load: Load, world: World) -> None:
    named = hateful_memes(world)
    assert set(named) == set(MEME_SPLITS)
    for split, items in named.items():
        rows = load(f"hateful_memes/{split}.jsonl")
        for row, item in zip(rows, items, strict=True):
            shown = {item.colour for item in item.meme.scene.objects} | {item.shape for item in item.meme.scene.objects}
            assert row["img"] == f"img/{row['id']:05d}.png" and (written / "hateful_memes" / row["img"]).is_file()
            assert row["text"] == item.meme.word
            assert row.get("label") == (None if split.startswith("test") else int(row["text"] not in shown))
    ids = [item.id for items in named.values() for item in items]
    assert len(set(ids)) == len(ids)
    assert any(item.id < 10_000 for item in named["dev_seen"]), "a leading zero, which the number has lost"


def test_the_word_is_printed_below_the_things(written: Path, world: World) -> None:
    for item in hateful_memes(world)["dev_seen"][:40]:
        with Image.open(written / "hateful_memes" / item.img) as image:
            shown = np.asarray(image.convert("L")) < 40
        dark = sorted((x, y) for y, x in zip(*np.nonzero(shown), strict=True))
        wanted = sorted(pixels(item.meme.word))
        left, top = min(x for x, _ in dark), min(y for _, y in dark)
        first = min(x for x, _ in wanted)
        assert [(x - left, y - top) for x, y in dark] == [(x - first, y) for x, y in wanted]
        assert top > 2 * CELL


def test_every_word_and_every_picture_has_both_labels(world: World) -> None:
    memes = [item.meme for item in hateful_memes(world)["dev_seen"]]
    by_scene: dict[str, list[int]] = defaultdict(list)
    by_word: dict[str, list[int]] = defaultdict(list)
    for meme in memes:
        by_scene[meme.scene.identity].append(meme.label)
        by_word[meme.word].append(meme.label)
    assert len(memes) == 500 and len(by_word) == 10
    assert all(sorted(labels) == [0, 1] for labels in by_scene.values())
    assert all(abs(sum(labels) / len(labels) - 0.5) < 0.02 for labels in by_word.values())


def test_scenes_of_memes_and_icons_keep_their_roles(world: World) -> None:
    for split, items in hateful_memes(world).items():
        assert {item.meme.scene.role for item in items} == {Role.tuning if split == "train" else Role.evaluation}
    seen = [{item.meme.scene.identity for item in items} for items in hateful_memes(world).values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    for split, role in {"train": Role.tuning, "val": Role.selection, "test": Role.evaluation}.items():
        assert {scene.role for problem in iconqa(world, split) for scene in problem.scenes} == {role}


def test_vsr_random_split_has_its_own_keys(load: Load) -> None:
    row = load("vsr/data/splits/random/test.jsonl")[0]
    assert "subj" not in row and row["reference_frame"] is None


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_statements_are_true_of_the_scene_as_labelled(load: Load, world: World, split: str) -> None:
    scenes = {picture.file_name: picture.scene for picture in world.pictures(f"vsr_{split}")}
    rows = load(f"vsr/data/splits/zeroshot/{split}.jsonl")
    assert len(rows) == world.sizes[f"vsr_{split}"]
    for row in rows:
        things = {item.name: item for item in scenes[row["image"]].objects}
        assert row["caption"] == f"The {row['subj']} is {row['relation']} the {row['obj']}."
        assert row["label"] == beyond(things[row["subj"]], row["relation"], things[row["obj"]])
        assert (row["vote_false_validator_id"] == "[]") == bool(row["label"])


def test_statements_are_as_often_true_as_false(load: Load) -> None:
    rows = load("vsr/data/splits/zeroshot/test.jsonl")
    for relation in ("left of", "right of", "above", "below"):
        labels = [row["label"] for row in rows if row["relation"] == relation]
        assert len(labels) > 80
        assert abs(sum(labels) / len(labels) - 0.5) < 0.03


def test_pictures_of_statements_have_official_names_and_urls(written: Path, load: Load) -> None:
    for row in load("vsr/data/splits/zeroshot/test.jsonl"):
        host, folder, name = row["image_link"].rsplit("/", 2)
        assert host == "http://images.cocodataset.org"
        assert name == row["image"]
        assert (written / "coco" / folder / name).is_file()
