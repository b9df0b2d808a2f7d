"""Questions about clips: each row kept, the clip by its file's name, every annotator's words as they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.data.media import RawPool
from instructblip.data.readers.base import Drop
from instructblip.data.readers.registry import read
from instructblip.data.sample import Sample
from instructblip.data.shards import member_name
from instructblip.data.templates import fill
from tests.fixtures import real_tree

CLIP = "-4wsuPCjDBc_5_15"  # a YouTube id may begin with a dash and hold underscores
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
HEADER = "video_id,start,end,question,answer1,answer2,answer3,answer4,answer5"


def items(recipe: str, split: str, raw: Path) -> tuple[list[Sample], dict[str, str]]:
    """A split's Samples, and the reasons for what is none."""
    read_all = list(read(recipes.load(recipe), split, raw))
    drops = {item.uid: item.reason for item in read_all if isinstance(item, Drop)}
    return [item for item in read_all if isinstance(item, Sample)], drops


def msvd(raw: Path, rows: list[tuple[int, int, str, str]], mapping: bytes, split: str = "test") -> None:
    keys = ("id", "video_id", "question", "answer")
    folder = raw / "msvd_qa"
    folder.mkdir(exist_ok=True)
    (folder / f"{split}_qa.json").write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    (folder / "youtube_mapping.txt").write_bytes(mapping)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_msvd_clips_are_named_by_the_mapping(tmp_path: Path, end: bytes) -> None:
    mapping = end.join([f"{CLIP} vid1".encode(), b"a_b-c_2_9 vid12", b""])
    msvd(tmp_path, [(7, 1, "what is it?", "cat"), (8, 12, "who?", "man"), (9, 2, "how?", "slow")], mapping)
    rows, drops = items("msvd_qa", "test", tmp_path)
    assert drops == {"msvd_qa/test/9": "clip without a name in youtube_mapping.txt"}
    media = rows[0].media[0]
    assert (media.kind, media.pool, media.key, media.relpath) == ("video", "msvd", CLIP, f"{CLIP}.avi")
    assert rows[0].group == CLIP and rows[1].media[0].key == "a_b-c_2_9"
    assert all(member_name(row.media[0].key) for row in rows)


def test_rows_that_ask_twice_are_both_kept(tmp_path: Path) -> None:
    msvd(tmp_path, [(7, 1, "who eats?", "man"), (8, 1, "who eats?", "boy")], f"{CLIP} vid1".encode())
    rows, _ = items("msvd_qa", "test", tmp_path)
    assert [(row.uid, row.answers[0].text) for row in rows] == [("msvd_qa/test/7", "man"), ("msvd_qa/test/8", "boy")]


def test_msrvtt_clips_are_named_by_number(tmp_path: Path) -> None:
    (tmp_path / "msrvtt_qa").mkdir()
    row = {
        "answer": "couch",
        "category_id": 14,
        "id": 158581,
        "question": "what are they sitting on?",
        "video_id": 6513,
    }
    (tmp_path / "msrvtt_qa/val_qa.json").write_text(json.dumps([row]))
    ((sample,), _) = items("msrvtt_qa", "val", tmp_path)
    media = sample.media[0]
    assert sample.uid == "msrvtt_qa/val/158581" and (media.key, media.relpath) == ("video6513", "video6513.mp4")
    assert (media.kind, media.pool, sample.group) == ("video", "msrvtt", "video6513")


@pytest.mark.parametrize("place", ["video6513.mp4", "TrainValVideo/video6513.mp4", "TestVideo/video6513.mp4"])
def test_msrvtt_clips_are_found_in_both_archives(tmp_path: Path, place: str) -> None:
    test_msrvtt_clips_are_named_by_number(tmp_path)
    (tmp_path / "msrvtt" / place).parent.mkdir(parents=True)
    (tmp_path / "msrvtt" / place).touch()
    media = items("msrvtt_qa", "val", tmp_path)[0][0].media[0]
    assert RawPool.open("msrvtt", tmp_path / "msrvtt").find(media).file == tmp_path / "msrvtt" / place


def ivqa(raw: Path, *lines: str, split: str = "test", start: str = "") -> tuple[list[Sample], dict[str, str]]:
    (raw / "ivqa").mkdir(exist_ok=True)
    (raw / f"ivqa/{split}.csv").write_bytes((start + "\r\n".join(lines)).encode())
    return items("ivqa", split, raw)


def test_ivqa_keeps_each_annotators_words(tmp_path: Path) -> None:
    (row,), drops = ivqa(tmp_path, HEADER, "a-B_c,23,41,What is cut,onion,none,NA,onion,nan")
    assert not drops and [(answer.text, answer.votes) for answer in row.answers] == [
        ("onion", 2), ("none", 1), ("NA", 1), ("nan", 1),
    ]  # fmt: skip
    media = row.media[0]
    assert (media.kind, media.key, media.relpath) == ("video", "a-B_c_23_41", "a-B_c_23_41.webm")
    assert row.uid == "ivqa/test/0" and row.slots == {"question": "What is cut"}, "no question mark is put in"


def test_ivqa_empty_cells_are_no_votes(tmp_path: Path) -> None:
    lines = ["abc,1,2,What,null,,red,,red", "abc,3,4,What,,,,,", "abc,5,6,What,red"]
    rows, drops = ivqa(tmp_path, HEADER, *lines)
    assert [(answer.text, answer.votes) for answer in rows[0].answers] == [("null", 1), ("red", 2)]
    assert [(answer.text, answer.votes) for answer in rows[1].answers] == [("red", 1)], "a row cut short"
    assert drops == {"ivqa/test/1": "no answer"}


def test_ivqa_columns_are_known_by_name(tmp_path: Path) -> None:
    ((row,), _) = ivqa(tmp_path, HEADER + ",type", 'abc,1,2,"What, then",a,b,c,d,"e, f",1', start=BYTE_ORDER_MARK)
    assert row.slots == {"question": "What, then"} and row.answers[-1].text == "e, f"
    ((row,), _) = ivqa(tmp_path, "," + HEADER, "0,abc,1,2,What,a,b,c,d,e")
    assert row.media[0].key == "abc_1_2", "a first column of row numbers"
    with pytest.raises(ValueError, match=r"test.csv is not in the layout"):
        ivqa(tmp_path, HEADER.replace("answer5", "answer"), "abc,1,2,What,a,b,c,d,e")


@pytest.mark.parametrize("recipe", ["msvd_qa", "msrvtt_qa", "ivqa"])
@pytest.mark.parametrize("profile", ["paper", "lavis"])
def test_the_question_is_never_sent_bare(tmp_path: Path, recipe: str, profile: str) -> None:
    (row,), _ = ivqa(tmp_path, HEADER, "abc,1,2,what is it?,a,b,c,d,e")
    prompt = recipes.load(recipe).protocol(profile).prompts[profile]
    assert fill(prompt, row) == "Question: what is it? Short answer:"


@pytest.mark.parametrize(
    ("recipe", "split"), [("msvd_qa", "train"), ("msvd_qa", "val"), ("msvd_qa", "test"), ("msrvtt_qa", "test")]
)
def test_real_files_are_read_without_a_drop(real: Path, tmp_path: Path, recipe: str, split: str) -> None:
    real_tree.link(real, tmp_path)
    rows, drops = items(recipe, split, tmp_path)
    assert rows and not drops and len({row.uid for row in rows}) == len(rows)
    assert all(row.answers and member_name(row.media[0].key) for row in rows)


def test_real_clips_are_found(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path)
    pool = RawPool.open("msrvtt", tmp_path / "msrvtt")
    clips = {path.stem for path in (tmp_path / "msrvtt").iterdir()}
    media = {row.media[0].key: row.media[0] for row in items("msrvtt_qa", "test", tmp_path)[0]}
    assert clips & media.keys()
    assert all(pool.find(media[clip]).file.stat().st_size for clip in clips & media.keys())
