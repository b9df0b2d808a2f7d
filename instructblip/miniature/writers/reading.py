"""Sets about printed words: TextCaps and TextVQA with their OCR files, and OCR-VQA."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from instructblip.miniature import books
from instructblip.miniature.albums import Picture
from instructblip.miniature.lettering import Token, read, word_on
from instructblip.miniature.programs import LETTERED, captions, least_asked
from instructblip.miniature.scenes import SIDE
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import Record, votes

SPLITS = ("train", "val", "test")
BOOK_SPLITS = {"train": 1, "val": 2, "test": 3}
ANNOTATORS = 10
MISREAD_RATE = 0.05  # of annotators who call a word unanswerable
HIDDEN = ("caption_str", "reference_strs", "caption_tokens", "reference_tokens")  # in TextCaps' test file


def write_textcaps(tree: Path, world: World) -> None:
    """With the pictures and OCR files that TextVQA shares."""
    for split in SPLITS:
        album = world.pictures(f"textvqa_{split}")
        world.draw(tree, f"textvqa_{split}")
        write_json(
            tree / f"textvqa/TextVQA_Rosetta_OCR_v0.2_{split}.json",
            {"data": [_rosetta_row(picture, world.rng(f"rosetta/{picture.id}")) for picture in album]},
        )
        rows = textcaps(split, album, world.rng(f"textcaps/{split}"))
        write_json(tree / f"textvqa/TextCaps_0.1_{split}.json", _release(split, "textcaps", "0.1", rows))


def _rosetta_row(picture: Picture, rng: random.Random) -> Record:
    tokens = read(picture.scene, rng)
    return {
        "image_id": picture.key,
        "ocr_tokens": [token.word for token in tokens],
        "ocr_info": [_ocr_info(token) for token in tokens],
    }


def _ocr_info(token: Token) -> Record:
    left, top, width, height = token.box
    box = {"top_left_x": left, "top_left_y": top, "width": width, "height": height}
    return {"word": token.word, "bounding_box": {**box, "rotation": 0.0, "yaw": 0, "roll": 0, "pitch": 0}}


def textcaps(split: str, album: Sequence[Picture], rng: random.Random) -> list[Record]:
    """Rows of `TextCaps_0.1_*.json`: one a caption, but of the test split, which has none, one a picture."""
    rows: list[Record] = []
    for picture in album:
        said = captions(picture.scene, rng, grammar=LETTERED)
        for caption in said[:1] if split == "test" else said:
            row = _open_image(picture, split) | {
                "image_name": picture.key,
                "image_path": f"{'test' if split == 'test' else 'train'}/{picture.file_name}",
                "caption_id": len(rows),
                "caption_str": caption,
                "reference_strs": said,
                "caption_tokens": _tokens(caption),
                "reference_tokens": [_tokens(reference) for reference in said],
            }
            rows.append({key: value for key, value in row.items() if split != "test" or key not in HIDDEN})
    return rows


def write_textvqa(tree: Path, world: World) -> None:
    start = 0
    for split in SPLITS:
        rows = textvqa(split, world.pictures(f"textvqa_{split}"), start, world.rng(f"textvqa/{split}"))
        start += len(rows)
        write_json(tree / f"textvqa/TextVQA_0.5.1_{split}.json", _release(split, "textvqa", "0.5.1", rows))


def textvqa(split: str, album: Sequence[Picture], start: int, rng: random.Random) -> list[Record]:
    """Rows of `TextVQA_0.5.1_*.json`: a question about each picture with several words; ids from `start`."""
    asked: Counter[object] = Counter()
    rows: list[Record] = []
    for picture in album:
        if not (candidates := word_on(picture.scene)):
            continue
        question = least_asked(candidates, asked, rng)
        row = _open_image(picture, split) | {
            "question": question.text,
            "answers": votes(question.answer, "unanswerable", MISREAD_RATE, ANNOTATORS, rng),
            "question_tokens": _tokens(question.text),
            "question_id": start + len(rows),
        }
        rows.append({key: value for key, value in row.items() if split != "test" or key != "answers"})
    return rows


def _open_image(picture: Picture, split: str) -> Record:
    return {
        "image_id": picture.key,
        "image_classes": sorted({item.shape.capitalize() for item in picture.scene.objects}),
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "image_width": SIDE,
        "image_height": SIDE,
        "set_name": split,
    }


def _release(split: str, name: str, version: str, rows: list[Record]) -> Record:
    return {"dataset_type": split, "dataset_name": name, "dataset_version": version, "data": rows}


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def write_ocrvqa(tree: Path, world: World) -> None:
    rows: Record = {}
    for split, number in BOOK_SPLITS.items():
        world.draw(tree, f"books_{split}")
        rng = world.rng(f"ocrvqa/{split}")
        rows |= {picture.key: _book(picture, number, rng) for picture in world.pictures(f"books_{split}")}
    order = world.rng("ocrvqa").sample(sorted(rows), len(rows))
    write_json(tree / "ocrvqa/dataset.json", {key: rows[key] for key in order})


def _book(picture: Picture, split: int, rng: random.Random) -> Record:
    asked = books.questions(picture.scene, rng)
    return {
        "imageURL": f"http://ecx.images-amazon.com/images/I/{rng.getrandbits(48):012x}{PurePosixPath(picture.file).suffix}",
        "questions": [question.text for question in asked],
        "answers": [question.answer for question in asked],
        "title": books.title(picture.scene),
        "authorName": books.author(picture.scene),
        "genre": books.genre(picture.scene),
        "split": split,
    }
