"""Closed questions: statements to judge."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from instructblip.miniature.albums import Picture
from instructblip.miniature.programs import Statement, least_asked, statements
from instructblip.miniature.world import World, write_lines
from instructblip.miniature.writers.official import Record


def write_vsr(tree: Path, world: World) -> None:
    for split in ("train", "dev", "test"):
        album = f"vsr_{split}"
        world.draw(tree / "coco", album)
        rows = vsr(world.pictures(album), world.sizes[album], world.rng(f"vsr/{split}"))
        write_lines(tree / f"vsr/data/splits/zeroshot/{split}.jsonl", rows)


def vsr(album: Sequence[Picture], number: int, rng: random.Random) -> list[Record]:
    """Lines of `data/splits/zeroshot/*.jsonl`: statements about the pictures in turn, half of them true."""
    asked: Counter[object] = Counter()
    rows = []
    for i in range(number):
        picture = album[i % len(album)]
        rows.append(_vsr_row(picture, least_asked(statements(picture.scene), asked, rng), rng))
    return rows


def _vsr_row(picture: Picture, statement: Statement, rng: random.Random) -> Record:
    """All validators agree with the label; their lists are strings, as in the official files."""
    validators = str(rng.sample(range(1, 70), rng.randint(2, 3)))
    return {
        "image": picture.file_name,
        "image_link": picture.url,
        "caption": statement.text,
        "label": int(statement.true),
        "relation": statement.relation,
        "subj": statement.subject,
        "obj": statement.other,
        "annotator_id": rng.randint(1, 69),
        "vote_true_validator_id": validators if statement.true else "[]",
        "vote_false_validator_id": "[]" if statement.true else validators,
    }
