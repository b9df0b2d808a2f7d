"""What the page does when it is asked; it knows nothing of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from instructblip import recipes
from instructblip.data.processor import open_picture
from instructblip.evaluation.answering import decoding
from instructblip.evaluation.pages.maps import largest, over, pale
from instructblip.inference import Assistant, Scored
from instructblip.models.attention import Attended
from instructblip.protocols import Decoding, Mode

LONGEST = 4_000  # characters of an instruction, and of all options (ours)
MOST_OPTIONS = 200  # (ours)
SIDE = 336  # pixels of a map's longer side (ours)


@dataclass(frozen=True)
class Shown:
    """What stands on the page; each one replaces the one before it. `told` is what went wrong, or what to know."""

    answer: str = ""
    log_likelihood: float | None = None  # of the answer, in total, as `rank` gives it
    ranking: Scored = ()  # type: ignore[assignment]
    maps: tuple[tuple[Image.Image, str], ...] = ()  # with their captions
    cls_share: float | None = None  # of the attention, which no map shows
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoder:
    """How a recipe is evaluated: the settings of `generate` that the page begins with and can go back to."""

    recipe: str
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: str, family: str) -> Decoder:
        """For one of the two families of language models. Raises ValueError as `decoded` does."""
        settings = decoding(decoded(recipe), family)
        return cls(recipe, {name: value for name, value in settings.items() if name != "seed"})


def decoded(recipe: str) -> Decoding:
    """Raises ValueError for a recipe that is not known, or whose answers are not written but ranked."""
    protocol = recipes.load(recipe).evaluation
    if protocol is None or protocol.mode is not Mode.generate:
        raise ValueError(f"recipe={recipe} has no decoding settings, nothing is generated for it; vqav2 has some")
    return protocol.decoding


def ask(
    assistant: Assistant, image: Any, instruction: str, options: str, settings: Mapping[str, Any]
) -> Iterator[Shown]:
    """The answer as it is written, then its log-likelihood, the ranked options and where the queries look.

    `options` are texts to rank, one a line. Whatever the user can put right is told, and nothing is raised for it.
    """
    shown = Shown()
    try:
        picture = _picture(image)
        candidates, notes = read_options(options)
        shown = replace(shown, told=(*notes, *_notes(assistant, instruction)))
        for text in _written(assistant, picture, instruction, settings):
            shown = replace(shown, answer=text)
            yield shown
        texts = list(dict.fromkeys(filter(None, [shown.answer, *candidates])))
        scores = dict(assistant.rank(picture, instruction, texts) if texts else [])
        ranking = [(text, score) for text, score in scores.items() if text in candidates]
        shown = replace(shown, log_likelihood=scores.get(shown.answer), ranking=ranking)
        if not shown.answer:
            shown = replace(shown, told=(*shown.told, "The model ended its answer before the first word."))
        yield shown
        found = assistant.attention(picture, instruction)
        yield replace(shown, maps=_maps(picture, found), cls_share=float(found.cls_share.mean()))
    except ValueError as error:
        yield replace(shown, told=(*shown.told, str(error)))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        yield replace(
            shown, told=(*shown.told, "The GPU has no memory left for this: ask for less text or fewer beams.")
        )


def read_options(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The options, each once, and what to tell about lines that were left out.

    Raises ValueError for too many or too long ones.
    """
    lines = text.rstrip().splitlines()
    if len(text) > LONGEST or len(lines) > MOST_OPTIONS:
        raise ValueError(
            f"The options have {len(lines):,} lines and {len(text):,} characters; the page ranks up to "
            f"{MOST_OPTIONS} lines and {LONGEST:,} characters."
        )
    found = [line.strip() for line in lines]
    notes = [
        f"Line {number} of the options is empty and was left out." for number, line in enumerate(found, 1) if not line
    ]
    for number, line in enumerate(found, 1):
        if line and (first := found.index(line) + 1) != number:
            notes.append(f"Line {number} of the options repeats line {first} and was left out.")
    return list(dict.fromkeys(filter(None, found))), tuple(notes)


def _picture(image: Any) -> Image.Image:
    if image is None:
        raise ValueError("There is no picture: choose one, drop one, or take an example.")
    try:
        return open_picture(image)
    except ValueError as error:
        raise ValueError(f"This is no picture that can be read: {error.__cause__ or error}") from error


def _notes(assistant: Assistant, instruction: str) -> tuple[str, ...]:
    """What the Q-Former does not read. Raises ValueError for an instruction that cannot be asked."""
    if not instruction.strip():
        raise ValueError("The instruction is empty: write what the model shall say about the picture.")
    if len(instruction) > LONGEST:
        raise ValueError(f"The instruction has {len(instruction):,} characters; the page takes up to {LONGEST:,}.")
    qformer = assistant.config.qformer
    if not qformer.instruction_aware:
        return ("The Q-Former of this model does not read instructions; the language model alone does.",)
    (cut,) = assistant.processor.collator.prompts([instruction], [], [0]).truncated
    return (f"The Q-Former reads the last {qformer.max_length} tokens of this instruction.",) if cut else ()


def _written(
    assistant: Assistant, picture: Image.Image, instruction: str, settings: Mapping[str, Any]
) -> Iterator[str]:
    """With one beam token by token, with several all at once."""
    if settings["num_beams"] == 1:
        yield from assistant.stream(picture, instruction, **settings)
    else:
        yield assistant.answer(picture, instruction, **settings)


def _maps(picture: Image.Image, found: Attended) -> tuple[tuple[Image.Image, str], ...]:
    """The mean over queries: of all layers that see the picture, then of each."""
    layers = found.maps.mean(dim=1)  # (K, rows, columns)
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    under = pale(picture.resize(size, Image.Resampling.BICUBIC))
    drawn = [(layers.mean(dim=0), "all layers")]
    drawn += [(values, f"layer {number}") for number, values in zip(found.layers, layers, strict=True)]
    return tuple((over(under, values, largest(values)), caption) for values, caption in drawn)
