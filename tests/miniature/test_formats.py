"""What the written files say is true of the scenes, balanced, and shaped as in the official files."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from instructblip.miniature.albums import ALBUMS, Picture, Sizes, pictures
from instructblip.miniature.programs import SYNONYMS
from instructblip.miniature.scenes import Object, Role, Scene

SNAPSHOT = Path(__file__).parent / "official_structure.json"
VQAV2 = (
    "vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
    "vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
    "vqav2/v2_mscoco_train2014_annotations.json",
    "vqav2/v2_mscoco_val2014_annotations.json",
)
VSR = ("train.jsonl", "dev.jsonl", "test.jsonl")
REAL_FILES = {  # ours: where the real samples keep the same
    "coco/annotations/captions_train2014.json": "coco_caption/annotations/captions_val2014.json",
    **{name: name for name in VQAV2},
    **{f"vsr/data/splits/zeroshot/{name}": f"vsr/splits/zeroshot/{name}" for name in VSR},
}
PLACES = {
    (row, column): "center" if (row, column) == (1, 1) else f"{name} {side}"
    for row, name in enumerate(["top", "middle", "bottom"])
    for column, side in enumerate(["left", "center", "right"])
}
ARTICLE = r"an? (?P<size>small |large )?(?P<colour>[a-z]+) (?P<shape>circle|square|triangle|star)"
PHRASE = re.compile(ARTICLE + r"(?: in the (?P<place>(?:top|middle|bottom) (?:left|center|right)|center))?", re.I)


def load(file: Path) -> Any:
    lines = file.read_text().splitlines()
    return [json.loads(line) for line in lines] if file.suffix == ".jsonl" else json.loads("".join(lines))


def structure(value: Any) -> Any:
    """Keys and types; a list stands for its first item."""
    if isinstance(value, dict):
        return {key: structure(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [structure(item) for item in value[:1]]
    return type(value).__name__


@pytest.fixture(scope="module")
def albums(seed: int, sizes: Sizes) -> dict[str, list[Picture]]:
    return {name: pictures(name, seed, sizes) for name in ALBUMS}


@pytest.fixture(scope="module")
def by_id(albums: dict[str, list[Picture]]) -> dict[int, Picture]:
    return {picture.id: picture for album in albums.values() for picture in album}


# --- an evaluator of its own: reads the text, looks at the scene ------------------------------------------


def place(item: Object) -> str:
    return PLACES[divmod(item.cell, 3)]


def answer(question: str, scene: Scene) -> str:
    if match := re.fullmatch(r"What color is the (\w+)\?", question):
        (found,) = {item.colour for item in scene.objects if item.shape == match[1]}
        return found
    if match := re.fullmatch(r"What shape is in the (.+)\?", question):
        (found,) = {item.shape for item in scene.objects if place(item) == match[1]}
        return found
    if match := re.fullmatch(r"Where is the (?:(\w+) )?(\w+)\?", question):
        (found,) = {place(item) for item in scene.objects if item.shape == match[2] and match[1] in (None, item.colour)}
        return found
    match = re.fullmatch(r"Is there an? (\w+) (\w+)\?", question)
    assert match, question
    return "yes" if any((item.colour, item.shape) == match.groups() for item in scene.objects) else "no"


def holds(statement: str, scene: Scene) -> bool:
    match = re.fullmatch(r"The (\w+) (\w+) is (left of|right of|above|below) the (\w+) (\w+)\.", statement)
    assert match, statement
    cells = {(item.colour, item.shape): divmod(item.cell, 3) for item in scene.objects}
    (row, column), (other_row, other_column) = cells[match[1], match[2]], cells[match[4], match[5]]
    return {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }[match[3]]


def questions(tree: Path, subset: str) -> Iterator[tuple[str, dict[str, Any]]]:
    asked = load(tree / f"vqav2/v2_OpenEnded_mscoco_{subset}_questions.json")["questions"]
    annotations = load(tree / f"vqav2/v2_mscoco_{subset}_annotations.json")["annotations"]
    for question, annotation in zip(asked, annotations, strict=True):
        assert question["question_id"] == annotation["question_id"]
        assert question["image_id"] == annotation["image_id"] == question["question_id"] // 1000
        yield question["question"], annotation


# --- truth ------------------------------------------------------------------------------------------------


def test_captions_name_every_object_and_nothing_else(tree: Path, by_id: dict[int, Picture]) -> None:
    told: dict[int, list[str]] = defaultdict(list)
    for annotation in load(tree / "coco/annotations/captions_train2014.json")["annotations"]:
        told[annotation["image_id"]].append(annotation["caption"])
    assert len(told) == 120
    for image_id, captions in told.items():
        assert len(set(captions)) == len(captions) == 5
        scene = by_id[image_id].scene
        for caption in captions:
            named = {(m["colour"].lower(), m["shape"]): m for m in PHRASE.finditer(caption)}
            assert set(named) == {(item.colour, item.shape) for item in scene.objects}, caption
            for item in scene.objects:
                match = named[item.colour, item.shape]
                assert match["size"] in (None, f"{item.size} ")
                assert match["place"] in (None, place(item))


@pytest.mark.parametrize("subset", ["train2014", "val2014"])
def test_answers_are_true_of_the_scene(tree: Path, by_id: dict[int, Picture], subset: str) -> None:
    count = 0
    for text, annotation in questions(tree, subset):
        count += 1
        true = answer(text, by_id[annotation["image_id"]].scene)
        assert annotation["multiple_choice_answer"] == true
        assert [vote["answer_id"] for vote in annotation["answers"]] == list(range(1, 11))
        votes = [vote["answer"] for vote in annotation["answers"]]
        assert votes.count(true) >= 6
        assert set(votes) <= {true, SYNONYMS.get(true)}
        assert annotation["answer_type"] == ("yes/no" if true in ("yes", "no") else "other")
        assert text.lower().startswith(annotation["question_type"])
    assert count > (420 if subset == "train2014" else 150)


def test_statements_are_true_of_the_scene_as_labelled(tree: Path, by_id: dict[int, Picture]) -> None:
    for split, rows in {"train": 20, "dev": 12, "test": 400}.items():
        lines = load(tree / f"vsr/data/splits/zeroshot/{split}.jsonl")
        assert len(lines) == rows
        for row in lines:
            assert row["label"] == holds(row["caption"], by_id[int(Path(row["image"]).stem)].scene)
            assert row["caption"] == f"The {row['subj']} is {row['relation']} the {row['obj']}."
            assert (row["vote_false_validator_id"] == "[]") == bool(row["label"])


# --- balance and shortcuts --------------------------------------------------------------------------------


def test_answers_are_balanced_in_each_program(tree: Path) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, annotation in questions(tree, "train2014"):
        counts[annotation["question_type"]][annotation["multiple_choice_answer"]] += 1
    assert {kind: len(answers) for kind, answers in counts.items()} == {
        "what color is the": 6,
        "what": 4,
        "where is the": 9,
        "is there a": 2,
    }
    for kind, answers in counts.items():
        assert max(answers.values()) <= 1.2 * min(answers.values()), (kind, answers)


def test_no_question_gives_its_answer_away(tree: Path) -> None:
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    for text, annotation in questions(tree, "train2014"):
        asked[text][annotation["multiple_choice_answer"]] += 1
    yes_no = [answers for text, answers in asked.items() if text.startswith("Is there")]
    assert all(abs(answers["yes"] - answers["no"]) <= 2 for answers in yes_no)


def test_statements_are_as_often_true_as_false(tree: Path) -> None:
    rows = load(tree / "vsr/data/splits/zeroshot/test.jsonl")
    for relation in ("left of", "right of", "above", "below"):
        labels = [row["label"] for row in rows if row["relation"] == relation]
        assert len(labels) > 80
        assert abs(sum(labels) / len(labels) - 0.5) < 0.03


def area_under_curve(scores: list[float], labels: list[int]) -> float:
    pairs = [
        (a > b) + (a == b) / 2
        for a, x in zip(scores, labels, strict=True)
        for b, y in zip(scores, labels, strict=True)
        if x and not y
    ]
    return sum(pairs) / len(pairs)


def test_label_cannot_be_told_without_looking(tree: Path) -> None:
    """Three standard errors of an area under 400 labels are about 0.09."""
    rows = load(tree / "vsr/data/splits/zeroshot/test.jsonl")
    labels = [row["label"] for row in rows]
    folders = [row["image_link"].split("/")[-2] for row in rows]
    files = [tree / "coco" / folder / row["image"] for folder, row in zip(folders, rows, strict=True)]
    shortcuts = {
        "file size": [float(file.stat().st_size) for file in files],
        "id": [float(file.stem) for file in files],
        "folder": [float(folder == "val2017") for folder in folders],
        "line": [float(line) for line in range(len(rows))],
        "text length": [float(len(row["caption"])) for row in rows],
        "annotator": [float(row["annotator_id"]) for row in rows],
    }
    for name, scores in shortcuts.items():
        assert 0.41 < area_under_curve(scores, labels) < 0.59, name


def test_label_cannot_be_told_from_the_words(tree: Path) -> None:
    """Votes of the words seen with either label in one half of the lines, tried on the other half."""
    rows = load(tree / "vsr/data/splits/zeroshot/test.jsonl")
    seen: Counter[str] = Counter()
    for row in rows[:200]:
        for pair in pairwise(row["caption"].split()):
            seen[" ".join(pair)] += 1 if row["label"] else -1
    guesses = [sum(seen[" ".join(pair)] for pair in pairwise(row["caption"].split())) > 0 for row in rows[200:]]
    right = sum(guess == bool(row["label"]) for guess, row in zip(guesses, rows[200:], strict=True))
    assert right / 200 < 0.6


# --- formats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*REAL_FILES, "coco/dataset_coco.json"])
def test_structure_is_the_official_one(tree: Path, name: str) -> None:
    assert structure(load(tree / name)) == load(SNAPSHOT)[name]


@pytest.mark.parametrize("name", REAL_FILES)
def test_snapshot_is_the_structure_of_the_real_file(real_samples: Path, name: str) -> None:
    assert structure(load(real_samples / REAL_FILES[name])) == load(SNAPSHOT)[name]


def test_pictures_have_official_names_and_urls(tree: Path) -> None:
    for image in load(tree / "coco/annotations/captions_train2014.json")["images"]:
        assert image["file_name"] == f"COCO_train2014_{image['id']:012d}.jpg"
        assert image["coco_url"] == f"http://images.cocodataset.org/train2014/{image['file_name']}"
        assert (tree / "coco/train2014" / image["file_name"]).is_file()
    for image in load(tree / "coco/dataset_coco.json")["images"]:
        assert (tree / "coco" / image["filepath"] / image["filename"]).is_file()
        assert image["filename"] == f"COCO_{image['filepath']}_{image['cocoid']:012d}.jpg"
    for row in load(tree / "vsr/data/splits/zeroshot/test.jsonl"):
        host, folder, name = row["image_link"].rsplit("/", 2)
        assert host == "http://images.cocodataset.org"
        assert name == row["image"]
        assert (tree / "coco" / folder / name).is_file()


def test_karpathy_splits(tree: Path) -> None:
    images = load(tree / "coco/dataset_coco.json")["images"]
    splits = Counter((image["split"], image["filepath"]) for image in images)
    assert splits == {("train", "train2014"): 120, ("val", "val2014"): 20, ("test", "val2014"): 60}
    for imgid, image in enumerate(images):
        assert image["imgid"] == imgid
        assert image["sentids"] == [sentence["sentid"] for sentence in image["sentences"]]
        assert len(image["sentences"]) == 5
    assert len({sentid for image in images for sentid in image["sentids"]}) == 5 * len(images)


def test_train_and_evaluation_share_no_scene_and_no_id(albums: dict[str, list[Picture]]) -> None:
    roles = {"train": Role.tuning, "val": Role.selection, "dev": Role.selection, "test": Role.evaluation}
    scenes: dict[Role, set[str]] = defaultdict(set)
    for name, album in albums.items():
        role = roles[name.split("_")[1]]
        assert {picture.scene.role for picture in album} == {role}
        scenes[role] |= {picture.scene.identity for picture in album}
    assert sum(map(len, scenes.values())) == len(set().union(*scenes.values()))
    ids = [id for album in ALBUMS.values() for id in album.ids]
    assert len(set(ids)) == len(ids)
    assert all(picture.id in ALBUMS[name].ids for name, album in albums.items() for picture in album)
