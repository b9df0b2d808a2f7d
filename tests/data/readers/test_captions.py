"""Caption readers: one Sample a picture with all its captions, joined by id, whatever the source calls its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.data.media import BadMedia, RawPool
from instructblip.data.readers.base import Context
from instructblip.data.readers.captions import coco_captions
from instructblip.data.readers.registry import read
from instructblip.data.sample import Form, MediaRef, Sample
from instructblip.data.templates import Template, fill, render
from instructblip.recipes import ResponseText
from tests.conftest import World
from tests.fixtures import real_tree
from tests.fixtures.raw_files import items, write

OPEN_IMAGES = ["00ab", "0jpg"]  # the second is all letters that a careless strip(".jpg") eats


def texts(sample: Sample) -> list[str]:
    return [answer.text for answer in sample.answers for _ in range(answer.votes)]


def coco_file(path: Path, **changed: Any) -> None:
    images = [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}, {"id": 10, "file_name": "000000000010.jpg"}]
    said = [(9, "A dog. "), (8, "lost"), (9, "a cat"), (9, "A dog. ")]
    annotations = [{"image_id": image, "id": i, "caption": text} for i, (image, text) in enumerate(said)]
    write(path, {"images": images, "annotations": annotations, **changed})


def test_coco_captions_are_joined_on_the_image(tmp_path: Path) -> None:
    coco_file(tmp_path / "coco/annotations/captions_train2014.json")
    (sample,), dropped = items("coco_caption", "train", tmp_path)
    assert sample.uid == "coco_caption/train/9" and sample.media[0].key == "9"
    assert [(answer.text, answer.votes) for answer in sample.answers] == [("A dog. ", 2), ("a cat", 1)]
    assert dropped == {
        "coco_caption/train/10": "no caption",
        "coco_caption/train/8": "captions of an image that is not listed",
    }


def karpathy_file(path: Path, rows: list[tuple[str, str]], **more: Any) -> None:
    sentences = [{"raw": "One ."}, {"raw": "Two\n"}]
    write(path, {"images": [{"split": s, "filename": name, "sentences": sentences, **more} for s, name in rows]})


def test_restval_is_only_trained_on_when_asked_for(tmp_path: Path) -> None:
    images = [
        {
            "split": split,
            "filepath": "val2014",
            "filename": f"COCO_val2014_{key:012d}.jpg",
            "cocoid": key,
            "sentences": [],
        }
        for key, split in enumerate(["train", "restval", "val", "test", "restval"])
    ]
    write(tmp_path / "coco/dataset_coco.json", {"images": images})
    keys = {
        split: [sample.media[0].key for sample in items("coco_caption", split, tmp_path)[0]]
        for split in ("train_restval", "val", "test")
    }
    assert keys == {"train_restval": ["0", "1", "4"], "val": ["2"], "test": ["3"]}
    recipe = recipes.load("coco_caption")
    assert recipe.training_split({}) == "train", (
        "LAVIS' file is never the default: it shows pictures that are evaluated"
    )
    assert recipe.training_split({"coco_caption": "train_restval"}) == "train_restval"


def test_karpathy_selects_the_split(world: World) -> None:
    found = {split: items("coco_caption", split, world.raw)[0] for split in ("val", "test")}
    splits = {split: {sample.media[0].key for sample in samples} for split, samples in found.items()}
    assert len(splits["val"]) == 4 and len(splits["test"]) == 12 and not splits["val"] & splits["test"]


def test_flickr30k_test_is_karpathys_and_not_everything(tmp_path: Path) -> None:
    rows = [("train", "11.jpg"), ("test", "1000092795.jpg"), ("val", "13.jpg")]
    karpathy_file(tmp_path / "flickr30k/dataset_flickr30k.json", rows)
    (sample,), dropped = items("flickr30k", "test", tmp_path)
    assert (sample.uid, sample.media[0].key) == ("flickr30k/test/1000092795", "1000092795") and not dropped
    assert texts(sample) == ["One .", "Two\n"], "raw text"
    assert recipes.load("flickr30k").protocol("paper").split == "test"


def test_flickr30k_refuses_names_that_are_not_its_own(tmp_path: Path) -> None:
    karpathy_file(tmp_path / "flickr30k/dataset_flickr30k.json", [("test", "COCO_val2014_000000000009.jpg")])
    with pytest.raises(ValueError, match=r"not a Flickr30K file name; .*dataset_flickr30k.json"):
        items("flickr30k", "test", tmp_path)


def test_flickr30k_tokens(tmp_path: Path) -> None:
    lines = ["10.jpg#0\tA man .", "10.jpg#1\tHe\u2028is .\r", "12.jpg#0\tNone", "12.jpg#1 no tab", "12.jpg#1\t"]
    (tmp_path / "flickr30k").mkdir()
    (tmp_path / "flickr30k/results_20130124.token").write_text("\n".join(lines) + "\n")
    samples, dropped = items("flickr30k", "all", tmp_path)
    assert {sample.media[0].key: texts(sample) for sample in samples} == {
        "10": ["A man .", "He\u2028is ."],
        "12": ["None"],
    }
    assert set(dropped) == {"flickr30k/all/line-4", "flickr30k/all/line-5"}


def nocaps_file(path: Path, captions: int) -> None:
    images = [
        {"id": i, "open_images_id": key, "file_name": f"{key}.jpg", "domain": domain}
        for i, (key, domain) in enumerate(zip(OPEN_IMAGES, ["in-domain", "out-domain"], strict=True))
    ]
    annotations = [{"image_id": i % 2, "id": i, "caption": f"caption {i}"} for i in range(captions)]
    write(path, {"images": images, "annotations": annotations})


def test_nocaps_has_one_row_an_image_with_every_caption_and_its_domain(tmp_path: Path) -> None:
    nocaps_file(tmp_path / "nocaps/nocaps_val_4500_captions.json", captions=20)
    samples, dropped = items("nocaps", "val", tmp_path)
    assert [(s.uid, s.media[0].key, s.meta["domain"]) for s in samples] == [
        ("nocaps/val/0", "00ab", "in-domain"),
        ("nocaps/val/1", "0jpg", "out-domain"),
    ]
    assert [len(sample.answers) for sample in samples] == [10, 10] and not dropped


def test_a_picture_that_lost_its_captions_is_named(tmp_path: Path) -> None:
    nocaps_file(tmp_path / "nocaps/nocaps_val_4500_captions.json", captions=1)
    assert items("nocaps", "val", tmp_path)[1] == {"nocaps/val/1": "no caption"}


def test_the_test_split_of_nocaps_is_unlabelled(tmp_path: Path) -> None:
    image = {"id": 4, "open_images_id": "0a", "file_name": "0a.jpg"}
    write(tmp_path / "nocaps/nocaps_test_image_info.json", {"images": [image]})
    (sample,), _ = items("nocaps", "test", tmp_path)
    assert sample.answers == () and sample.meta == {}


def textcaps_files(folder: Path, split: str, tokens: dict[str, list[str]], first: bool = True) -> None:
    rows = [
        {"image_id": key, "image_path": f"train/{key}.jpg", "caption_id": i, "caption_str": f"{key} {i}"}
        for i in range(5)
        for key in OPEN_IMAGES
    ]
    header = {"dataset_type": split, "dataset_name": "textcaps", "dataset_version": "0.1"}
    write(folder / f"TextCaps_0.1_{split}.json", {**header, "data": rows} if first else {"data": rows, **header})
    boxes = [{"image_id": key, "ocr_info": [], "ocr_tokens": words} for key, words in tokens.items()]
    write(folder / f"TextVQA_Rosetta_OCR_v0.2_{split}.json", {"data": boxes})


@pytest.mark.parametrize("order", [True, False])
def test_textcaps_joins_captions_and_ocr_by_key_not_by_order(tmp_path: Path, order: bool) -> None:
    tokens = {"0jpg": [str(number) for number in range(50, 0, -1)], "unused": ["x"], "00ab": []}
    textcaps_files(tmp_path / "textvqa", "train", tokens, order)
    samples, dropped = items("textcaps", "train", tmp_path)
    assert [(sample.uid, len(sample.answers)) for sample in samples] == [
        ("textcaps/train/00ab", 5),
        ("textcaps/train/0jpg", 5),
    ]
    assert samples[0].slots["ocr"] == () and not dropped
    assert samples[1].slots["ocr"] == tuple(tokens["0jpg"]), "all of them in the file's order; a wording takes 30"
    assert samples[1].media[0].relpath is None, "image_path says train/, the folder is train_images/"


def test_textcaps_reads_the_ocr_file_of_its_own_split(tmp_path: Path) -> None:
    textcaps_files(tmp_path / "textvqa", "train", {key: ["train"] for key in OPEN_IMAGES})
    textcaps_files(tmp_path / "textvqa", "val", {key: ["val"] for key in OPEN_IMAGES})
    for split in ("train", "val"):
        assert {sample.slots["ocr"] for sample in items("textcaps", split, tmp_path)[0]} == {(split,)}


def test_textcaps_names_a_picture_without_ocr_row(tmp_path: Path) -> None:
    textcaps_files(tmp_path / "textvqa", "val", {"00ab": ["a"]})
    samples, dropped = items("textcaps", "val", tmp_path)
    assert len(samples) == 1 and dropped == {"textcaps/val/0jpg": "picture is not in the OCR file"}


def test_the_test_split_of_textcaps_is_unlabelled_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "textvqa"
    for split in ("test", "train"):
        write(folder / f"TextCaps_0.1_{split}.json", {"data": [{"image_id": "0a"}]})
        write(folder / f"TextVQA_Rosetta_OCR_v0.2_{split}.json", {"data": [{"image_id": "0a", "ocr_tokens": ["b"]}]})
    (sample,), _ = items("textcaps", "test", tmp_path)
    assert sample.answers == ()
    with pytest.raises(ValueError, match=r"TextCaps_0.1_train.json is not in the layout .*caption_str"):
        items("textcaps", "train", tmp_path)


def test_ocr_tokens_stand_before_the_caption_instruction(tmp_path: Path) -> None:
    textcaps_files(tmp_path / "textvqa", "val", {"00ab": [], "0jpg": ["one", "two"]})
    nothing, read_words = items("textcaps", "val", tmp_path)[0]
    prompt = recipes.load("textcaps").protocol("paper").prompts["paper"]
    assert fill(prompt, nothing) == "A short image description:"
    assert fill(prompt, read_words) == "OCR tokens: one, two. A short image description:"
    wording = Template("t", "A photo of")
    trained = render(read_words, wording, read_words.answers[0], ResponseText.caption)
    assert trained.instruction == "OCR tokens: one, two. A photo of" and trained.response == "0jpg 0"


@pytest.mark.parametrize(
    ("recipe", "split", "value"),
    [
        ("coco_caption", "train", {"images": []}),
        ("coco_caption", "train", {"images": [{"id": 1}], "annotations": [{"image_id": 1}]}),
        ("coco_caption", "val", {"images": [{"split": "val", "sentences": [], "filename": "x.jpg"}]}),
        ("coco_caption", "val", []),
        ("flickr30k", "test", {"images": [{"filename": "1.jpg"}]}),
        ("nocaps", "val", {"images": [{"id": 1}]}),
        ("nocaps", "test", {"images": [{"id": 1}]}),
    ],
)
def test_a_foreign_layout_is_refused_with_its_file(tmp_path: Path, recipe: str, split: str, value: Any) -> None:
    facts = recipes.load(recipe)
    write(tmp_path / facts.source / facts.split(split).files[0], value)
    with pytest.raises(ValueError, match=f"{Path(facts.split(split).files[0]).name} is not in the layout"):
        list(read(facts, split, tmp_path))


@pytest.mark.parametrize(
    ("pool", "name", "ref"),
    [
        ("openimages_textvqa", "train_images/00ab.jpg", MediaRef("openimages_textvqa", "00ab")),
        ("openimages_textvqa", "test_images/00ab.jpg", MediaRef("openimages_textvqa", "00ab")),
        ("openimages_nocaps", "val/00ab.jpg", MediaRef("openimages_nocaps", "00ab", relpath="00ab.jpg")),
        ("openimages_nocaps", "00ab.jpg", MediaRef("openimages_nocaps", "00ab", relpath="00ab.jpg")),
        ("flickr30k", "flickr30k-images/12.jpg", MediaRef("flickr30k", "12", relpath="12.jpg")),
        (
            "visdial2018",
            "VisualDialog_val2018/VisualDialog_val2018_000000185565.jpg",
            MediaRef("visdial2018", "185565"),
        ),
        ("visdial2018", "VisualDialog_test2018/VisualDialog_test2018_000000000007.jpg", MediaRef("visdial2018", "7")),
        ("coco", "val2014/COCO_val2014_000000000009.jpg", MediaRef("coco", "9", relpath="000000000009.jpg")),
    ],
)
def test_pictures_are_found_under_their_official_names(tmp_path: Path, pool: str, name: str, ref: MediaRef) -> None:
    raw = RawPool.open(pool, tmp_path)
    with pytest.raises(BadMedia):
        raw.find(ref)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    assert raw.find(ref)


def test_every_caption_set_is_decoded_as_the_release_did() -> None:
    for name in ("coco_caption", "textcaps", "nocaps", "flickr30k"):
        protocol = recipes.load(name).protocol("paper")
        decoding = protocol.decoding
        assert (protocol.metric, decoding.num_beams, decoding.max_new_tokens, decoding.min_new_tokens) == (
            "cider",
            5,
            30,
            8,
        )
        assert decoding.repetition_penalty == 1.5 and set(decoding.length_penalty.values()) == {1.0}
        assert protocol.prompts["paper"].endswith("A short image description:")
    later = recipes.load("nocaps").protocol("lavis", "lavis_2023").decoding
    assert (later.num_beams, later.max_new_tokens, later.repetition_penalty) == (5, 80, 1.15)


def test_real_captions_are_read_without_a_drop(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path)
    counts = {}
    for name, splits in {
        "coco_caption": ("train", "train_restval", "val", "test"),
        "flickr30k": ("train", "val", "test", "all"),
        "nocaps": ("val", "test"),
        "textcaps": ("train",),
    }.items():
        for split in splits:
            samples, dropped = items(name, split, tmp_path)
            assert not dropped and len({sample.uid for sample in samples}) == len(samples)
            assert all(sample.answers for sample in samples) or (name, split) == ("nocaps", "test")
            counts[name, split] = len(samples)
    lists = {
        split: len(json.loads((real / f"flickr30k/flickr30k_{split}.json").read_text())) for split in ("val", "test")
    }
    assert [counts["flickr30k", split] for split in ("val", "test")] == list(lists.values())
    lines = (real / "flickr30k/assembled/results_20130124.token").read_text().splitlines()
    assert counts["flickr30k", "all"] == len({line.split("#")[0] for line in lines})
    assert counts["nocaps", "val"] == counts["nocaps", "test"] == 200
    assert counts["textcaps", "train"] == 25 and counts["coco_caption", "train"] == 12


@pytest.mark.parametrize("name", ["captions_train2017.json", "captions_val2014.json", "captions_val2017.json"])
def test_real_coco_files_of_either_year(real: Path, name: str) -> None:
    file = real / "coco_caption/annotations" / name
    samples = list(coco_captions([file], Context("coco_caption", "train", "coco", Form.caption, ())))
    source = json.loads(file.read_text())
    assert all(isinstance(sample, Sample) for sample in samples) and len(samples) == len(source["images"])
    assert sum(len(texts(sample)) for sample in samples if isinstance(sample, Sample)) == len(source["annotations"])


def test_real_nocaps_keeps_ten_captions_and_the_domains(real: Path, tmp_path: Path) -> None:
    real_tree.link(real, tmp_path)
    samples, _ = items("nocaps", "val", tmp_path)
    assert all(len(texts(sample)) == 10 for sample in samples)
    assert {sample.meta["domain"] for sample in samples} <= {"in-domain", "near-domain", "out-domain"}
