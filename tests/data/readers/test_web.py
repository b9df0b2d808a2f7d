"""Web pictures: what img2dataset wrote is read as it lies there, and what it could not have is counted by kind."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from instructblip import recipes
from instructblip.data.readers.base import Context, Drop
from instructblip.data.readers.web import BATCH, cause, img2dataset
from instructblip.data.sample import Form
from tests.fixtures.raw_files import items, write

CONTEXT = Context("web_capfilt", "train", "web_capfilt", Form.caption, ("caption", "synthetic"))


def shard(path: Path, rows: list[dict[str, Any]]) -> None:
    """A Parquet file with the columns img2dataset writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    usual = {"status": "success", "error_message": None, "width": 256, "sha256": ""}
    full = [
        {**dict.fromkeys(names), **usual, "url": f"http://x.org/{i}.jpg", "key": f"{path.stem}{i:04d}", **row}
        for i, row in enumerate(rows)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(full), path)


def failed(message: str, status: str = "failed_to_download") -> dict[str, Any]:
    return {"caption": "a dog", "status": status, "error_message": message}


def test_a_picture_is_its_address_and_lies_in_its_shards_tar(tmp_path: Path) -> None:
    shard(tmp_path / "web_capfilt/00000.parquet", [{"caption": "A dog.", "url": "http://x.org/a.jpg"}])
    shard(tmp_path / "web_capfilt/00001.parquet", [{"caption": "b"}, {"caption": "c", "url": "http://x.org/a.jpg"}])
    samples, dropped = items("web_capfilt", "train", tmp_path)
    assert [sample.uid for sample in samples] == [
        "web_capfilt/train/00000/000000000",
        "web_capfilt/train/00001/000010000",
        "web_capfilt/train/00001/000010001",
    ]
    first, _, again = (sample.media[0] for sample in samples)
    assert first.key == again.key == hashlib.sha1(b"http://x.org/a.jpg").hexdigest()[:20]
    assert (first.relpath, again.relpath) == ("00000.tar/000000000.jpg", "00001.tar/000010001.jpg")
    assert samples[0].answers[0].text == "A dog." and not dropped


def test_the_files_format_has_a_folder_instead_of_a_tar(tmp_path: Path) -> None:
    shard(tmp_path / "00000.parquet", [{"caption": "a"}])
    (tmp_path / "00000").mkdir()
    (sample,) = img2dataset([tmp_path / "00000.parquet"], CONTEXT)
    assert not isinstance(sample, Drop) and sample.media[0].relpath == "00000/000000000.jpg"


def test_dead_addresses_are_counted_by_kind(tmp_path: Path) -> None:
    messages = {
        "HTTP Error 404: Not Found": "HTTP 404",
        "HTTP Error 403: Forbidden": "HTTP 403",
        "<urlopen error timed out>": "timed out",
        "The read operation timed out": "timed out",
        "<urlopen error [Errno -2] Name or service not known>": "host not found",
        "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>": "certificate",
        "<urlopen error [Errno 111] Connection refused>": "connection",
        "Use of image disallowed by X-Robots-Tag directive": "disallowed by its owner",
        "": "other",
    }
    rows = [failed(message) for message in messages] + [failed("Image decoding error", "failed_to_resize")]
    shard(tmp_path / "web_capfilt/00000.parquet", [*rows, {"caption": ""}, {"url": None}, {"caption": "kept"}])
    samples, dropped = items("web_capfilt", "train", tmp_path)
    expected = [f"failed_to_download: {kind}" for kind in messages.values()]
    assert Counter(dropped.values()) == Counter(
        [*expected, "failed_to_resize: not a picture", "no caption", "no address"]
    )
    assert [sample.answers[0].text for sample in samples] == ["kept"]
    assert cause(None) == "other"


def test_captions_of_several_columns_are_alternatives(tmp_path: Path) -> None:
    rows = [{"caption": "web", "synthetic": "blip"}, {"caption": None, "synthetic": "blip"}, {"caption": "web"}]
    shard(tmp_path / "web_capfilt/00000.parquet", rows)
    samples, _ = items("web_capfilt", "train", tmp_path)
    assert [[answer.text for answer in sample.answers] for sample in samples] == [["web", "blip"], ["blip"], ["web"]]


def test_a_caption_that_reads_none_is_text(tmp_path: Path) -> None:
    shard(tmp_path / "web_capfilt/00000.parquet", [{"caption": "None"}, {"caption": "NA"}])
    assert [sample.answers[0].text for sample in items("web_capfilt", "train", tmp_path)[0]] == ["None", "NA"]


@pytest.mark.parametrize(
    ("name", "missing"), [("status", "status"), ("url", "url"), ("caption", "caption or synthetic")]
)
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, name: str, missing: str) -> None:
    path = tmp_path / "web_capfilt/00000.parquet"
    shard(path, [{"caption": "a"}])
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns([name]), path)
    with pytest.raises(ValueError, match=f"00000.parquet has no column {missing}: it has"):
        items("web_capfilt", "train", tmp_path)


def test_a_cut_shard_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "web_capfilt/00000.parquet", [{"caption": "a"}])
    whole = tmp_path / "web_capfilt/00001.parquet"
    shard(whole, [{"caption": "a"}] * 100)
    whole.write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"00001.parquet is not a whole Parquet file .*download its shard again"):
        items("web_capfilt", "train", tmp_path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for batches in (1, 5):
        path = tmp_path / f"{batches:05d}.parquet"
        columns = {
            name: [f"{name} {i}" for i in range(batches * BATCH)] for name in ("key", "url", "error_message", "caption")
        }
        table = pyarrow.table({**columns, "status": ["success"] * batches * BATCH})
        pyarrow.parquet.write_table(table, path, row_group_size=100)  # as img2dataset does
        tracemalloc.start()
        assert sum(1 for _ in img2dataset([path], CONTEXT)) == batches * BATCH
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], "one batch at a time"


def test_the_public_stand_in(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Write a terse summary.\n<image>"}, {"from": "gpt", "value": "a red bus"}]
    rows = [
        {"id": "004539375", "image": "00453/004539375.jpg", "conversations": said},
        {"id": "1", "image": "00000/1.jpg", "conversations": said[:1]},
    ]
    write(tmp_path / "web_capfilt/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", rows)
    (sample,), dropped = items("web_capfilt", "pretrain_558k", tmp_path)
    assert sample.uid == "web_capfilt/pretrain_558k/0" and sample.media[0].key == "004539375"
    assert sample.media[0].relpath == "LLaVA-Pretrain/images/00453/004539375.jpg"
    assert [answer.text for answer in sample.answers] == ["a red bus"] and not sample.slots
    assert dropped == {"web_capfilt/pretrain_558k/1": "not one request and its reply"}


def test_the_web_is_only_trained_on() -> None:
    recipe = recipes.load("web_capfilt")
    assert recipe.train == ["train", "pretrain_558k"] and recipe.evaluation is None
    assert recipe.sampling and recipe.sampling.size == 13_873_136
