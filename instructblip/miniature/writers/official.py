"""What the official files of several datasets have in common."""

from __future__ import annotations

import random
from typing import Any

Record = dict[str, Any]
LICENCE = {"url": "http://creativecommons.org/publicdomain/zero/1.0/", "name": "CC0 1.0 Universal"}


def info(description: str) -> Record:
    return {
        "description": description,
        "url": "",
        "version": "1.0",
        "year": 2014,
        "contributor": "instructblip.miniature",
        "date_created": "2014/01/01",
    }


def votes(answer: str, other: str, rate: float, annotators: int, rng: random.Random) -> list[str]:
    """What annotators say, in any order: each with chance `rate` the `other`, but always fewer than half of them."""
    deviating = min(sum(rng.random() < rate for _ in range(annotators)), (annotators - 1) // 2)
    return rng.sample([other] * deviating + [answer] * (annotators - deviating), annotators)
