"""Every written answer is true of its scene, balanced, and asked by a program of its set and by no other."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instructblip.miniature.albums import Picture
from instructblip.miniature.font import pixels
from tests.miniature import files
from tests.miniature.evaluator import evaluate
from tests.miniature.files import Item, Pictures

SYNONYMS = {
    "violet": "purple",
    "round": "circle",
    "box": "square",
    "middle": "center",
    "top": "top center",
    "bottom": "bottom center",
    "left": "middle left",
    "right": "middle right",
}
READERS: dict[str, tuple[Callable[..., list[Item]], tuple[str | int, ...]]] = {
    "vqav2": (files.vqav2, ("train2014", "val2014")),
    "okvqa": (files.okvqa, ("train2014", "val2014")),
    "aokvqa": (files.aokvqa, ("train", "val")),
    "ocrvqa": (files.ocrvqa, (1, 2, 3)),
    "vizwiz": (files.vizwiz, ("train", "val")),
    "textvqa": (files.textvqa, ("train", "val")),
}


@pytest.fixture(params=READERS)
def dataset(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def items(tree: Path, by_key: Pictures, dataset: str) -> list[Item]:
    read, splits = READERS[dataset]
    found = [item for split in splits for item in read(tree, by_key, split)]
    assert len(found) > 60
    return found


def majority(item: Item) -> str:
    return Counter(item.votes).most_common(1)[0][0]


def test_answers_are_true_of_the_scene(items: list[Item]) -> None:
    for item in items:
        assert majority(item) == evaluate(item.question, item.picture).answer, item.question


def test_answers_are_balanced_in_each_program(items: list[Item]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        counts[evaluate(item.question, item.picture).program][majority(item)] += 1
    for program, answers in counts.items():
        answers.pop("unanswerable", None)
        if program in ("title", "author", "word-on"):  # words: 24 and many pairs of them
            assert max(answers.values()) < 0.15 * sum(answers.values()), program
        else:  # what a cover shows is drawn by chance alone
            spread = 2.5 if program == "genre" else 1.2
            assert len(answers) > 1
            assert max(answers.values()) <= spread * min(answers.values()) + 3, (program, answers)


def test_no_wording_gives_its_answer_away(items: list[Item]) -> None:
    wordings: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        wordings[item.question][majority(item)] += 1
    for question, answers in wordings.items():
        if sum(answers.values()) >= 20:
            assert max(answers.values()) <= 0.75 * sum(answers.values()), question


def test_votes_of_vqav2(tree: Path, by_key: Pictures) -> None:
    for item in files.vqav2(tree, by_key, "train2014"):
        assert [vote["answer_id"] for vote in item.row["answers"]] == list(range(1, 11))
        assert item.votes.count(majority(item)) >= 6
        assert {SYNONYMS.get(vote, vote) for vote in item.votes} == {majority(item)}
        assert item.row["multiple_choice_answer"] == majority(item)
        assert item.row["answer_type"] == ("yes/no" if majority(item) in ("yes", "no") else "other")
        assert item.question.lower().startswith(item.row["question_type"])


def test_votes_of_okvqa_stand_twice(tree: Path, by_key: Pictures) -> None:
    stemmed = 0
    for item in files.okvqa(tree, by_key, "train2014"):
        raw = [vote["raw_answer"] for vote in item.row["answers"]]
        assert len(raw) == 10
        assert raw[::2] == raw[1::2]
        assert [text.removeprefix("a ").removeprefix("the ") for text in raw] == item.votes
        stemmed += raw != item.votes
        assert item.row["question_id"] // 10 == item.picture.id
    assert stemmed


def test_choices_of_aokvqa(tree: Path, by_key: Pictures) -> None:
    positions: Counter[int] = Counter()
    for split in ("train", "val"):
        for item in files.aokvqa(tree, by_key, split):
            row = item.row
            assert len(set(row["choices"])) == 4
            assert row["choices"][row["correct_choice_idx"]] == majority(item)
            assert len(item.votes) == 10
            assert len(row["question_id"]) == 22
            assert len(row["rationales"]) == 3
            positions[row["correct_choice_idx"]] += 1
    assert len(positions) == 4
    assert max(positions.values()) < 0.45 * sum(positions.values())
    vocabulary = (tree / "aokvqa/large_vocab_train.csv").read_text().splitlines()
    assert "fir tree" in vocabulary
    assert vocabulary == sorted(set(vocabulary))
    hidden = files.load(tree / "aokvqa/aokvqa_v1p0_test.json")
    assert not {"correct_choice_idx", "direct_answers", "rationales"} & set(hidden[0])


def test_books_have_ids_that_are_no_numbers_and_questions_true_of_the_cover(tree: Path, by_key: Pictures) -> None:
    rows = files.load(tree / "ocrvqa/dataset.json")
    assert any(key.startswith("0") for key in rows)
    assert any(key.endswith("X") for key in rows)
    assert all(len(key) == 10 for key in rows)
    for key, row in rows.items():
        suffix = row["imageURL"].rsplit(".", 1)[1]
        assert (tree / f"amazon_books/{key}.{suffix}").is_file()
        assert len(row["questions"]) == len(row["answers"]) == 5
        assert {row["title"], row["authorName"], row["genre"], "Yes", "No"} == set(row["answers"])
    assert any(row["imageURL"].endswith(".gif") for row in rows.values())


def test_unanswerable_questions_of_vizwiz(tree: Path, by_key: Pictures) -> None:
    items = files.vizwiz(tree, by_key, "val")
    for item in items:
        unanswerable = majority(item) == "unanswerable"
        assert item.row["answerable"] == (not unanswerable)
        assert item.row["answer_type"] == ("unanswerable" if unanswerable else "other")
        assert {vote["answer_confidence"] for vote in item.row["answers"]} <= {"yes", "maybe", "no"}
    assert 0.3 < sum(majority(item) == "unanswerable" for item in items) / len(items) < 0.55
    assert set(files.load(tree / "vizwiz/test.json")[0]) == {"image", "question"}


def test_ocr_tokens_hold_every_word_and_two_that_are_not_there(tree: Path, by_key: Pictures) -> None:
    first_is_wrong = []
    for split in ("train", "val", "test"):
        for row in files.load(tree / f"textvqa/TextVQA_Rosetta_OCR_v0.2_{split}.json")["data"]:
            picture: Picture = by_key["openimages_textvqa", row["image_id"]]
            printed = {item.word for item in picture.scene.objects} - {""}
            assert len(row["ocr_tokens"]) == len(set(row["ocr_tokens"])) == len(printed) + 2
            assert printed < set(row["ocr_tokens"])
            assert [info["word"] for info in row["ocr_info"]] == row["ocr_tokens"]
            first_is_wrong.append(row["ocr_tokens"][0] not in printed)
    assert 0.3 < sum(first_is_wrong) / len(first_is_wrong) < 0.75


def test_ocr_boxes_hold_the_ink_of_their_words(tree: Path, by_key: Pictures) -> None:
    for row in files.load(tree / "textvqa/TextVQA_Rosetta_OCR_v0.2_val.json")["data"][:40]:
        file = tree / "openimages_textvqa/train_images" / f"{row['image_id']}.jpg"
        image = np.asarray(Image.open(file).convert("RGB")).astype(int)
        printed = {item.word for item in by_key["openimages_textvqa", row["image_id"]].scene.objects}
        for info in row["ocr_info"]:
            box = {
                key: round(48 * info["bounding_box"][key]) for key in ("top_left_x", "top_left_y", "width", "height")
            }
            rows = slice(box["top_left_y"], box["top_left_y"] + box["height"])
            columns = slice(box["top_left_x"], box["top_left_x"] + box["width"])
            if info["word"] in printed:
                assert (image[rows, columns].sum(-1) < 150).sum() == len(pixels(info["word"]))


def test_ids_of_textvqa_go_on_from_split_to_split(tree: Path) -> None:
    rows = [
        row
        for split in ("train", "val", "test")
        for row in files.load(tree / f"textvqa/TextVQA_0.5.1_{split}.json")["data"]
    ]
    assert [row["question_id"] for row in rows] == list(range(len(rows)))
