"""Answer lists: the official order or a countable one, written once, and an honest bound on what ranking them can score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.data.preparing.vocabularies import (
    AnswerList,
    build,
    coverage,
    prepare_vocabularies,
    read_vocabulary,
    vocabulary_path,
)
from instructblip.data.readers.registry import read
from instructblip.data.sample import Sample
from tests.fixtures import real_tree

RECIPE = recipes.load("msrvtt_qa")
TRAIN = ["cat", "dog", "cat", "ant", "bee", "dog", "cat", "none"]


def write_qa(raw: Path, split: str, answers: list[str]) -> None:
    rows = [{"id": n, "video_id": n, "question": "what?", "answer": answer} for n, answer in enumerate(answers)]
    (raw / "msrvtt_qa").mkdir(exist_ok=True)
    (raw / f"msrvtt_qa/{split}_qa.json").write_text(json.dumps(rows))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    write_qa(folder, "train", TRAIN)
    (folder / "msrvtt_qa/qa_ans2label.json").write_text(json.dumps({"dog": 1, "ant": 0, "yak": 2}))
    return folder


def test_the_official_list_keeps_its_indices(raw: Path) -> None:
    assert build(RECIPE, "lavis", raw).answers == ("ant", "dog", "yak")


def test_a_counted_list_goes_by_votes_then_alphabet(raw: Path) -> None:
    whole = build(RECIPE, "train", raw)
    assert whole.answers == ("cat", "dog", "ant", "bee", "none")
    write_qa(raw, "train", TRAIN[::-1])
    assert build(RECIPE, "train", raw) == whole, "the order of the rows does not matter"


def test_the_most_frequent_are_taken(raw: Path) -> None:
    write_qa(raw, "train", [f"{number:04}" for number in range(1500)] + ["zebra", "zebra"])
    top = build(RECIPE, "train_top1000", raw)
    assert len(top.answers) == 1000 and top.answers[0] == "zebra" and top.answers[-1] == "0998"


def test_all_splits_together(tmp_path: Path) -> None:
    recipe = recipes.load("msvd_qa")
    (tmp_path / "msvd_qa").mkdir()
    (tmp_path / "msvd_qa/youtube_mapping.txt").write_text("abc_1_2 vid1\n")
    for split, answer in [("train", "cat"), ("val", "dog"), ("test", "ant")]:
        row = {"id": 1, "video_id": 1, "question": "what?", "answer": answer}
        (tmp_path / f"msvd_qa/{split}_qa.json").write_text(json.dumps([row]))
    assert build(recipe, "all", tmp_path).answers == ("ant", "cat", "dog")
    assert build(recipe, "train", tmp_path).answers == ("cat",)


def test_annotators_are_counted_each(tmp_path: Path) -> None:
    (tmp_path / "ivqa").mkdir()
    rows = ["video_id,start,end,question,answer1,answer2,answer3,answer4,answer5", "a,1,2,what,red,red,red,NA,blue"]
    (tmp_path / "ivqa/train.csv").write_text("\n".join([*rows, "b,1,2,what,blue,none,,,"]))
    assert build(recipes.load("ivqa"), "train", tmp_path).answers == ("red", "blue", "NA", "none")


def test_written_once_and_read_back(raw: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = prepare_vocabularies(RECIPE, raw, data)
    assert first["lavis"]["fresh"] and first["lavis"]["answers"] == 3
    assert read_vocabulary(RECIPE, "train", data) == build(RECIPE, "train", raw)
    assert read_vocabulary(RECIPE, "lavis", data).hash == first["lavis"]["hash"]
    path = vocabulary_path(data, "msrvtt_qa", "lavis")
    before = path.stat().st_mtime_ns
    again = prepare_vocabularies(RECIPE, raw, data)
    assert path.stat().st_mtime_ns == before and not any(entry["fresh"] for entry in again.values())


def test_other_files_make_another_list_and_another_hash(raw: Path, tmp_path: Path) -> None:
    first = prepare_vocabularies(RECIPE, raw, tmp_path / "data")
    (raw / "msrvtt_qa/qa_ans2label.json").write_text(json.dumps({"dog": 0, "ant": 1, "yak": 2}))
    again = prepare_vocabularies(RECIPE, raw, tmp_path / "data")
    assert again["lavis"]["fresh"] and not again["train"]["fresh"]
    assert again["lavis"]["hash"] != first["lavis"]["hash"], "the order is part of the hash"
    assert read_vocabulary(RECIPE, "lavis", tmp_path / "data").answers == ("dog", "ant", "yak")


def test_a_missing_file_is_named_with_its_source_and_the_other_choices(raw: Path, tmp_path: Path) -> None:
    (raw / "msrvtt_qa/qa_ans2label.json").unlink()
    with pytest.raises(ValueError, match=r"missing .*qa_ans2label.json; get it from https://\S*msrvtt/train_ans2label"):
        build(RECIPE, "lavis", raw)
    entries = prepare_vocabularies(RECIPE, raw, tmp_path / "data")
    assert "qa_ans2label.json" in entries["lavis"]["missing"] and entries["train"]["answers"] == 5
    with pytest.raises(
        ValueError, match=r"put qa_ans2label.json into msrvtt_qa/.*written: train, train_top1000"
    ) as refused:
        read_vocabulary(RECIPE, "lavis", tmp_path / "data")
    assert "prepare.py recipe=msrvtt_qa" in str(refused.value)


def test_an_unknown_name_is_refused_with_the_nearest(raw: Path, tmp_path: Path) -> None:
    for ask in (lambda: build(RECIPE, "train_top400", raw), lambda: read_vocabulary(RECIPE, "train_top400", tmp_path)):
        with pytest.raises(ValueError, match="did you mean 'train_top4000'"):
            ask()


@pytest.mark.parametrize(
    "content", [{"a": 0, "b": 0}, {"a": 1, "b": 2}, {"a": "0"}, {"a": None, "b": 0}, ["a", "b"], {"a": 0, "b": [1]}]
)
def test_an_official_file_that_numbers_badly_is_refused(raw: Path, content: object) -> None:
    (raw / "msrvtt_qa/qa_ans2label.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"qa_ans2label.json does not number"):
        build(RECIPE, "lavis", raw)


def test_an_empty_list_is_refused(raw: Path) -> None:
    (raw / "msrvtt_qa/qa_ans2label.json").write_text("{}")
    with pytest.raises(ValueError, match="'lavis' of msrvtt_qa is empty"):
        build(RECIPE, "lavis", raw)


def test_coverage_is_the_share_of_questions_whose_answer_is_there(raw: Path) -> None:
    samples = [item for item in read(RECIPE, "train", raw) if isinstance(item, Sample)]
    assert coverage(AnswerList("x", ("cat", "dog"), ""), samples) == 5 / 8
    assert coverage(AnswerList("x", ("CAT",), ""), samples) == 0.0, "compared as the source writes them"
    assert coverage(AnswerList("x", ("cat",), ""), []) is None


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa"])
def test_the_protocol_ranks_the_list_of_lavis_and_others_by_name(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.protocol("paper").vocabulary == "lavis"
    for variant in recipe.vocabularies.keys() - {"lavis"}:
        assert recipe.protocol("paper", variant).vocabulary == variant
    assert recipe.protocol("paper", "generate").vocabulary is None


def test_real_official_lists(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path)
    for name, size, least in [("msvd_qa", 2423, 0.99), ("msrvtt_qa", 1500, 0.8)]:
        official = build(recipes.load(name), "lavis", tmp_path)
        assert len(official.answers) == size and list(official.answers) == sorted(official.answers)
        samples = [item for item in read(recipes.load(name), "test", tmp_path) if isinstance(item, Sample)]
        share = coverage(official, samples)
        assert share is not None and least <= share <= 1
