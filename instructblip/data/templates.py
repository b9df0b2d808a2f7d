"""The border where the wording ends: a Sample and a template become an Example."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

from omegaconf import OmegaConf

from instructblip import multitask
from instructblip.choices import Wording
from instructblip.config.data import WordingConfig
from instructblip.data.sample import Answer, Form, Sample
from instructblip.multitask import OCR
from instructblip.names import require
from instructblip.recipes import RECIPES, Recipe, ResponseText

MAX_OCR_TOKENS = 30  # LAVIS `predict_answers`
OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
LETTERS = string.ascii_lowercase


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
    context: str = ""  # where more is asked of it: what comes before the instruction and before each of the following
    following: tuple[tuple[str, str], ...] = ()  # what is asked and to be said besides, each by itself


@cache
def templates(family: str) -> tuple[Template, ...]:
    """The wordings of a task family, in the file's order."""
    require(family, [path.stem for path in (RECIPES / "templates").glob("*.yaml")], "template family")
    rows = OmegaConf.load(RECIPES / "templates" / f"{family}.yaml")
    return tuple(Template(row["id"], row["text"]) for row in cast(Iterable[dict[str, str]], rows))


def wordings(recipe: Recipe, split: str, config: WordingConfig) -> tuple[Template, ...]:
    """What a training split is worded with: the templates of its family that are kept, or one bare input.

    Raises ValueError for a family or template there is not, one that keeps nothing, or a setting that is not used.
    """
    family = recipe.wordings(split)
    if config.style is not Wording.instructions:
        if config.keep:
            raise ValueError(f"wording.keep={config.keep} is not used by wording.style={config.style.value}")
        plain = config.style is Wording.plain
        text = multitask.bare(family) if plain else multitask.identified(recipe.task, recipe.name, family)
        return (Template(config.style.value, text),)
    for name, ids in config.keep.items():
        for each in ids:
            require(each, [template.id for template in templates(name)], f"template of wording.keep.{name}")
    kept = config.keep.get(family, [template.id for template in templates(family)])
    if not kept:
        raise ValueError(f"wording.keep.{family} is empty; keep one template at least")
    return tuple(template for template in templates(family) if template.id in kept)


def render(sample: Sample, template: Template, answer: Answer, response: ResponseText) -> Example:
    """The Example that trains `sample` on `answer`; OCR tokens go in front of a wording that does not place them."""
    said = answer.text
    if sample.form is Form.vqg:
        said = sample.slots["question"]
        sample = replace(sample, slots={**sample.slots, "answer": answer.text})
    wording = template.text if "{ocr}" in template.text else OCR + template.text
    following = sample.slots.get("following", ())
    context = sample.slots["context"] if following else ""
    asked, said = fill(wording, sample), RESPONSES[response](said)
    return Example(asked, said, sample.dataset, sample.uid, template.id, context, following)


def fill(text: str, sample: Sample) -> str:
    """The wording with its named slots filled; what stands in [[ ]] is left out when one of its slots is empty.

    Nothing is left of a wording without slots and words, the picture alone. Raises ValueError naming a slot the Sample
    does not have, or a Sample whose slots are all that the wording says and blank.
    """
    slots = Slots(sample)
    text = OPTIONAL.sub(lambda found: found.group(1) if all(map(slots.get, _named(found.group(1)))) else "", text)
    try:
        filled = text.format_map(slots)
    except (KeyError, ValueError, IndexError) as missing:
        raise ValueError(f"{sample.uid} has no slot for the wording {text!r} ({missing})") from missing
    if text.strip() and not filled.strip():
        raise ValueError(f"{sample.uid}: the wording {text!r} leaves an empty instruction")
    return filled


class Slots(dict[str, str]):
    """A Sample's slots as text; a wording may name a slot and nothing beneath it.

    OCR tokens in file order, 30 at most (LAVIS); dialogue turns as questions and answers (ours); `options` are the
    Sample's own candidates with letters (paper, appendix E).
    """

    def __init__(self, sample: Sample) -> None:
        super().__init__({name: value for name, value in sample.slots.items() if isinstance(value, str)})
        if "ocr" in sample.slots:
            self["ocr"] = ", ".join(sample.slots["ocr"][:MAX_OCR_TOKENS])
        if "history" in sample.slots:
            self["history"] = " ".join(
                f"Question: {marked(asked)} Answer: {said}" for asked, said in sample.slots["history"]
            )
        if sample.candidates and sample.candidates.items:
            letters = zip(LETTERS, sample.candidates.items, strict=False)
            self["options"] = " ".join(f"({letter}) {item}" for letter, item in letters)


def marked(asked: str) -> str:
    """A turn with the question mark its source leaves out (Visual Dialog does, everywhere)."""
    return asked if asked.endswith((".", "?", "!", ":")) else f"{asked}?"


def _named(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name]


def blip_caption(text: str) -> str:
    """Captions as LAVIS' `blip_caption` processor writes them: lower case, most punctuation a blank, 50 words.

    PAPER C.5; the released models' captions show that their training targets went through it.
    """
    text = re.sub(r"[.!\"()*#:;~]", " ", text.lower())
    return " ".join(text.split()[:50])


RESPONSES = {ResponseText.raw: lambda text: text, ResponseText.caption: blip_caption}
