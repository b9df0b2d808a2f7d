"""Questions about printed words: tokens in file order, books of one split, ids as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.media import RawPool
from instructblip.data.tables import from_row, to_row
from instructblip.data.templates import fill
from tests.fixtures import real_tree
from tests.fixtures.raw_files import items, write


def textvqa(folder: Path, split: str, questions: list[dict[str, Any]], tokens: dict[str, list[str]]) -> None:
    write(folder / f"textvqa/TextVQA_0.5.1_{split}.json", {"data": questions})
    read = [{"image_id": image, "ocr_tokens": words, "ocr_info": []} for image, words in tokens.items()]
    write(folder / f"textvqa/TextVQA_Rosetta_OCR_v0.2_{split}.json", {"data": read})


def asked(question_id: int, image: str, **more: Any) -> dict[str, Any]:
    return {"question": "what brand?", "image_id": image, "question_id": question_id, "set_name": "val"} | more


def test_textvqa_joins_every_token_in_file_order(tmp_path: Path) -> None:
    words = [f"w{99 - number}" for number in range(40)]
    answers = {"answers": ["nous", "dakota", "dakota"]}
    textvqa(tmp_path, "val", [asked(34602, "b", **answers), asked(34603, "a", **answers)], {"a": ["A"], "b": words})
    first, second = items("textvqa", "val", tmp_path)[0]
    assert first.slots["ocr"] == tuple(words) and second.slots["ocr"] == ("A",)
    assert [(answer.text, answer.votes) for answer in first.answers] == [("nous", 1), ("dakota", 2)]
    prompt = fill(recipes.load("textvqa").protocol("paper").prompts["paper"], first)
    assert prompt == f"OCR tokens: {', '.join(words[:30])}. Question: what brand? Short answer:"


def test_textvqas_id_is_the_question_not_the_picture(tmp_path: Path) -> None:
    textvqa(tmp_path, "val", [asked(1, "a"), asked(2, "a")], {"a": []})
    samples, _ = items("textvqa", "val", tmp_path)
    assert [sample.uid for sample in samples] == ["textvqa/val/1", "textvqa/val/2"]
    assert {sample.group for sample in samples} == {"a"}
    assert {sample.media[0].relpath for sample in samples} == {"train_images/a.jpg"}


def test_a_picture_without_tokens_has_no_token_sentence(tmp_path: Path) -> None:
    textvqa(tmp_path, "val", [asked(1, "a")], {"a": []})
    (sample,), drops = items("textvqa", "val", tmp_path)
    prompt = recipes.load("textvqa").protocol("paper").prompts["paper"]
    assert fill(prompt, sample) == "Question: what brand? Short answer:" and not drops


def test_a_picture_that_nobody_read_is_counted_and_not_taken_for_one_without_words(tmp_path: Path) -> None:
    textvqa(tmp_path, "val", [asked(1, "a"), asked(2, "b")], {"a": ["word"]})
    samples, drops = items("textvqa", "val", tmp_path)
    assert [sample.uid for sample in samples] == ["textvqa/val/1"]
    assert drops == {"textvqa/val/2": "picture is not in the OCR file"}


def test_textvqas_test_pictures_lie_apart_and_have_no_answers(tmp_path: Path) -> None:
    textvqa(tmp_path, "test", [asked(1, "a")], {"a": []})
    (sample,), _ = items("textvqa", "test", tmp_path)
    assert sample.media[0].relpath == "test_images/a.jpg" and not sample.answers


def book(split: int, **change: Any) -> dict[str, Any]:
    return {
        "imageURL": "http://ecx.images-amazon.com/images/I/61Y5.jpg", "title": "T", "authorName": "A", "genre": "G",
        "questions": ["Who wrote this book?", "What is the title of this book?"], "answers": ["A", "T"], "split": split,
    } | change  # fmt: skip


def test_ocrvqas_splits_share_no_book(tmp_path: Path) -> None:
    write(
        tmp_path / "ocrvqa/dataset.json", {"0761183272": book(1), "076118327X": book(2), "10": book(3), "11": book(1)}
    )
    found = {split: items("ocrvqa", split, tmp_path)[0] for split in ("train", "val", "test")}
    books = {split: sorted({sample.group or "" for sample in samples}) for split, samples in found.items()}
    assert books == {"train": ["0761183272", "11"], "val": ["076118327X"], "test": ["10"]}
    recipe = recipes.load("ocrvqa")
    assert recipe.train == ["train"] and recipe.protocol("paper").split == "test"
    assert {name: split.select for name, split in recipe.splits.items()} == {
        "train": ["1"],
        "val": ["2"],
        "test": ["3"],
    }


def test_every_question_of_a_book_is_a_sample_with_its_own_answer(tmp_path: Path) -> None:
    write(tmp_path / "ocrvqa/dataset.json", {"012X": book(1)})
    first, second = items("ocrvqa", "train", tmp_path)[0]
    assert (first.uid, second.uid) == ("ocrvqa/train/012X#0", "ocrvqa/train/012X#1")
    assert (first.slots, first.answers[0].text) == ({"question": "Who wrote this book?"}, "A")
    assert (second.slots, second.answers[0].text) == ({"question": "What is the title of this book?"}, "T")


@pytest.mark.parametrize(
    ("url", "relpath"),
    [("http://x/I/a.b.jpg", "012X.jpg"), ("http://x/I/a.gif", "012X.gif"), ("http://x/I/a.png?size=1.5", "012X.png")],
)
def test_a_cover_keeps_the_extension_of_its_address(tmp_path: Path, url: str, relpath: str) -> None:
    write(tmp_path / "ocrvqa/dataset.json", {"012X": book(1, imageURL=url)})
    (sample, _), _ = items("ocrvqa", "train", tmp_path)
    assert (sample.media[0].key, sample.media[0].relpath) == ("012X", relpath)


def test_a_cover_is_found_where_a_tool_named_every_file_jpg(tmp_path: Path) -> None:
    write(tmp_path / "ocrvqa/dataset.json", {"012X": book(1, imageURL="http://x/I/a.gif")})
    (sample, _), _ = items("ocrvqa", "train", tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/012X.jpg").write_bytes(b"GIF89a")
    assert RawPool.open("amazon_books", tmp_path).find(sample.media[0]).file.name == "012X.jpg"


def test_questions_and_answers_of_unequal_number_are_not_paired(tmp_path: Path) -> None:
    write(tmp_path / "ocrvqa/dataset.json", {"1": book(1, answers=["T"]), "2": book(1)})
    samples, drops = items("ocrvqa", "train", tmp_path)
    assert {sample.group for sample in samples} == {"2"} and drops == {"ocrvqa/train/1": "2 questions for 1 answers"}


def test_words_of_a_cover_are_there_only_with_their_file(tmp_path: Path) -> None:
    write(tmp_path / "ocrvqa/dataset.json", {"1": book(1), "2": book(1)})
    assert all("ocr" not in sample.slots for sample in items("ocrvqa", "train", tmp_path)[0])
    write(tmp_path / "ocrvqa/ocr_tokens.json", {"1": ["MOM", "2016"]})
    samples, _ = items("ocrvqa", "train", tmp_path)
    assert [sample.slots["ocr"] for sample in samples] == [("MOM", "2016"), ("MOM", "2016"), (), ()]
    prompt = recipes.load("ocrvqa").protocol("paper").prompts["paper"]
    written = [fill(prompt, sample) for sample in samples]
    assert written[0] == "OCR tokens: MOM, 2016. Question: Who wrote this book? Short answer:"
    assert written[2] == "Question: Who wrote this book? Short answer:"


def test_words_written_as_one_text_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "ocrvqa/dataset.json", {"1": book(1)})
    write(tmp_path / "ocrvqa/ocr_tokens.json", {"1": "MOM 2016"})
    with pytest.raises(ValueError, match=r"ocr_tokens.json: 1 books have no list of words, the first is '1'"):
        items("ocrvqa", "train", tmp_path)


@pytest.mark.parametrize(("recipe", "split"), [("textvqa", "val"), ("textvqa", "test"), ("ocrvqa", "train")])
def test_real_files_are_read_without_a_drop(real: Path, tmp_path: Path, recipe: str, split: str) -> None:
    real_tree.link(real, tmp_path)
    samples, drops = items(recipe, split, tmp_path)
    assert samples and len({sample.uid for sample in samples}) == len(samples) and not drops
    annotators = {("textvqa", "val"): 10, ("textvqa", "test"): 0, ("ocrvqa", "train"): 1}[recipe, split]
    assert {sum(answer.votes for answer in sample.answers) for sample in samples} == {annotators}
    assert all(sample.slots["question"] and from_row(to_row(sample)) == sample for sample in samples)
