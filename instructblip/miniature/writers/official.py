"""What the official files of several datasets have in common."""

from __future__ import annotations

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
