"""The border where the wording ends: a Sample and a template become an Example."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

from omegaconf import OmegaConf

from instructblip.data.sample import Answer, Sample
from instructblip.names import require
from instructblip.recipes import RECIPES, ResponseText


@dataclass(frozen=True, slots=True)
class Template:
    """One wording; `{question}` and its like name slots of a Sample."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """What the model is told and what it should say, and where both come from."""

    instruction: str
    response: str
    recipe: str
    uid: str
    template: str


@cache
def templates(family: str) -> tuple[Template, ...]:
    """The wordings of a task family, in the file's order."""
    require(family, [path.stem for path in (RECIPES / "templates").glob("*.yaml")], "template family")
    rows = OmegaConf.load(RECIPES / "templates" / f"{family}.yaml")
    return tuple(Template(row["id"], row["text"]) for row in cast(Iterable[dict[str, str]], rows))


def render(sample: Sample, template: Template, answer: Answer, response: ResponseText) -> Example:
    text = RESPONSES[response](answer.text)
    return Example(fill(template.text, sample), text, sample.dataset, sample.uid, template.id)


def fill(text: str, sample: Sample) -> str:
    """The wording with its named slots filled. Raises ValueError naming a slot the Sample does not have."""
    try:
        return text.format_map(Slots(sample.slots))
    except (KeyError, ValueError, IndexError) as missing:
        raise ValueError(f"{sample.uid} has no slot for the wording {text!r} ({missing})") from missing


class Slots(dict[str, str]):
    """Slot values as text; a wording may name a slot and nothing beneath it."""

    def __init__(self, slots: Mapping[str, object]) -> None:
        super().__init__({name: value for name, value in slots.items() if isinstance(value, str)})


def blip_caption(text: str) -> str:
    """Captions as LAVIS' `blip_caption` processor writes them: lower case, most punctuation a blank, 50 words.

    PAPER C.5; the released models' captions show that their training targets went through it.
    """
    text = re.sub(r"[.!\"()*#:;~]", " ", text.lower())
    return " ".join(text.split()[:50])


RESPONSES = {ResponseText.raw: lambda text: text, ResponseText.caption: blip_caption}
