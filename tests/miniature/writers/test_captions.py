"""Captions name every object and nothing else; official names, splits and domains."""

import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from instructblip.miniature.albums import Picture
from instructblip.miniature.scenes import WITHHELD, Scene
from tests.miniature.evaluator import place
from tests.miniature.files import Pictures, load

SHAPE = r"(?P<shape>circle|square|triangle|star)"
WORD = r"(?: (?:with the word|that says|reading|with) (?P<word>(?!the word)[a-z]+)(?: on it| written on it)?)?"
PLACE = r"(?: in the (?P<place>(?:top|middle|bottom) (?:left|center|right)|center))?"
COLOUR = r"(?P<colour>red|green|blue|yellow|purple|orange)"
LISTED = re.compile(rf"\ban? (?P<size>small |large )?{COLOUR} {SHAPE}{WORD}{PLACE}", re.IGNORECASE)
STRIPED = re.compile(
    rf"\ban? (?P<size>small |large )?{SHAPE} (?:that is|painted|in) {COLOUR}(?P<word>)(?P<place>)", re.I
)
DOMAINS = {0: "in-domain", 1: "near-domain"}


def assert_true(captions: Iterable[str], scene: Scene, phrase: re.Pattern[str] = LISTED, words: bool = False) -> None:
    objects = {(item.colour, item.shape): item for item in scene.objects}
    for caption in captions:
        named = {(match["colour"].lower(), match["shape"]): match for match in phrase.finditer(caption)}
        assert set(named) == set(objects), caption
        for key, match in named.items():
            assert match["size"] in (None, f"{objects[key].size} ")
            assert match["place"] in (None, "", place(objects[key]))
            assert (match["word"] or "") == (objects[key].word if words else ""), caption


def test_coco(tree: Path, by_id: dict[int, Picture]) -> None:
    told: dict[int, list[str]] = defaultdict(list)
    for annotation in load(tree / "coco/annotations/captions_train2014.json")["annotations"]:
        told[annotation["image_id"]].append(annotation["caption"])
    assert len(told) == 400
    for image_id, captions in told.items():
        assert len(set(captions)) == len(captions) == 5
        assert_true(captions, by_id[image_id].scene)


def test_drawing_order_is_not_the_order_of_the_caption(tree: Path, by_id: dict[int, Picture]) -> None:
    first = []
    for annotation in load(tree / "coco/annotations/captions_train2014.json")["annotations"]:
        objects = by_id[annotation["image_id"]].scene.objects
        match = LISTED.search(annotation["caption"])
        if len(objects) == 2:
            assert match
            first.append(match["shape"] == objects[0].shape and match["colour"].lower() == objects[0].colour)
    assert 0.35 < sum(first) / len(first) < 0.65


def test_karpathy_splits(tree: Path) -> None:
    images = load(tree / "coco/dataset_coco.json")["images"]
    splits = Counter((image["split"], image["filepath"]) for image in images)
    assert splits == {
        ("train", "train2014"): 400,
        ("restval", "val2014"): 5,
        ("val", "val2014"): 20,
        ("test", "val2014"): 60,
    }
    for imgid, image in enumerate(images):
        assert image["imgid"] == imgid
        assert image["sentids"] == [sentence["sentid"] for sentence in image["sentences"]]
        assert len(image["sentences"]) == 5
        assert image["filename"] == f"COCO_{image['filepath']}_{image['cocoid']:012d}.jpg"
        assert (tree / "coco" / image["filepath"] / image["filename"]).is_file()
    assert len({sentid for image in images for sentid in image["sentids"]}) == 5 * len(images)


def test_pictures_of_coco_have_official_names_and_urls(tree: Path) -> None:
    for image in load(tree / "coco/annotations/captions_train2014.json")["images"]:
        assert image["file_name"] == f"COCO_train2014_{image['id']:012d}.jpg"
        assert image["coco_url"] == f"http://images.cocodataset.org/train2014/{image['file_name']}"
        assert (tree / "coco/train2014" / image["file_name"]).is_file()


def test_nocaps(tree: Path, by_key: Pictures) -> None:
    """In, near and out of domain are none, one and all objects of a pair that no tuned picture shows."""
    source = load(tree / "nocaps/nocaps_val_4500_captions.json")
    told: dict[int, list[str]] = defaultdict(list)
    for annotation in source["annotations"]:
        told[annotation["image_id"]].append(annotation["caption"])
    domains: Counter[str] = Counter()
    for image in source["images"]:
        picture = by_key["openimages_nocaps", image["open_images_id"]]
        assert len(set(told[image["id"]])) == 10
        assert_true(told[image["id"]], picture.scene)
        new = sum((item.shape, item.colour) in WITHHELD for item in picture.scene.objects)
        assert image["domain"] == ("out-domain" if new == len(picture.scene.objects) else DOMAINS[new])
        assert (tree / "openimages_nocaps" / image["file_name"]).is_file()
        domains[image["domain"]] += 1
    assert len(domains) == 3
    assert min(domains.values()) > 5
    hidden = load(tree / "nocaps/nocaps_test_image_info.json")
    assert "annotations" not in hidden
    assert "domain" not in hidden["images"][0]


def test_flickr30k(tree: Path, by_key: Pictures) -> None:
    lines = (tree / "flickr30k/results_20130124.token").read_text().splitlines()
    told: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        name, caption = line.split("\t")
        told[name.split("#")[0]].append(caption)
    images = load(tree / "flickr30k/dataset_flickr30k.json")["images"]
    assert len(images) == len(told)
    assert {image["split"] for image in images} == {"train", "val", "test"}
    for image in images:
        raw = [sentence["raw"] for sentence in image["sentences"]]
        assert raw == told[image["filename"]]
        assert_true(raw, by_key["flickr30k", image["filename"].removesuffix(".jpg")].scene, STRIPED)
        assert not any(LISTED.search(caption) for caption in raw)
        assert (tree / "flickr30k/flickr30k-images" / image["filename"]).is_file()


@pytest.mark.parametrize("split", ["train", "val"])
def test_textcaps(tree: Path, by_key: Pictures, split: str) -> None:
    rows = load(tree / f"textvqa/TextCaps_0.1_{split}.json")["data"]
    assert [row["caption_id"] for row in rows] == list(range(len(rows)))
    for row in rows:
        picture = by_key["openimages_textvqa", row["image_id"]]
        assert any(item.word for item in picture.scene.objects)
        assert_true([row["caption_str"]], picture.scene, words=True)
        assert row["caption_str"] in row["reference_strs"]
        assert (tree / "openimages_textvqa/train_images" / f"{row['image_id']}.jpg").is_file()
    assert set(Counter(row["image_id"] for row in rows).values()) == {5}


def test_textcaps_test_has_pictures_without_captions(tree: Path) -> None:
    rows = load(tree / "textvqa/TextCaps_0.1_test.json")["data"]
    assert "caption_str" not in rows[0]
    assert (tree / "openimages_textvqa/test_images" / f"{rows[0]['image_id']}.jpg").is_file()


def test_web_capfilt_is_what_img2dataset_leaves(tree: Path, albums: dict[str, list[Picture]]) -> None:
    rows = pyarrow.parquet.read_table(tree / "web_capfilt/00000.parquet").to_pylist()
    assert [row["key"] for row in rows] == [f"{k:09d}" for k in range(300)]
    alive = [row for row in rows if row["status"] == "success"]
    assert 0.8 < len(alive) / len(rows) < 0.97
    with tarfile.open(tree / "web_capfilt/00000.tar") as tar:
        members = {member.name: tar.extractfile(member) for member in tar.getmembers()}
    assert set(members) == {f"{row['key']}.{end}" for row in alive for end in ("jpg", "txt", "json")}
    with tarfile.open(tree / "web_capfilt/00000.tar") as tar:
        for row in alive[:20]:
            jpg, txt, meta = (tar.extractfile(f"{row['key']}.{end}") for end in ("jpg", "txt", "json"))
            assert jpg and txt and meta
            with Image.open(io.BytesIO(jpg.read())) as image:
                assert image.size == (row["width"], row["height"]) == (48, 48)
            assert txt.read().decode() == row["caption"]
            assert json.loads(meta.read()) == row
    assert all(row["error_message"] and row["sha256"] is None for row in rows if row["status"] != "success")


def test_three_in_ten_web_captions_are_wrong_or_partial(tree: Path, albums: dict[str, list[Picture]]) -> None:
    rows = pyarrow.parquet.read_table(tree / "web_capfilt/00000.parquet").to_pylist()
    full = partial = 0
    for row, picture in zip(rows, albums["web"], strict=True):
        named = {(match["colour"].lower(), match["shape"]) for match in LISTED.finditer(row["caption"])}
        there = {(item.colour, item.shape) for item in picture.scene.objects}
        full += named == there
        partial += named < there
        assert not named & {(colour, shape) for shape, colour in WITHHELD}
    assert 0.6 < full / len(rows) < 0.8
    assert partial > 0.05 * len(rows)


def test_three_in_five_web_captions_tell_places(tree: Path) -> None:
    """Of every thing they name. A second stage of captions that seldom do teaches to read no place off the queries."""
    rows = pyarrow.parquet.read_table(tree / "web_capfilt/00000.parquet").to_pylist()
    named = [list(LISTED.finditer(row["caption"])) for row in rows]
    placed = [all(match["place"] for match in found) for found in named]
    assert 0.5 < sum(placed) / len(rows) < 0.7
    assert not any(match["place"] for found, every in zip(named, placed, strict=True) for match in found if not every)
