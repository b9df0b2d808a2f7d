"""What a model looks at in a scene, and what it needs of it to answer.

Shapes: K layers that see the image, Q queries, P image tokens, V vision width, C answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from instructblip import recipes
from instructblip.data.sample import Form, MediaRef, Sample
from instructblip.data.templates import fill
from instructblip.evaluation.lens.scenes import ANSWERS, Pair, box, cover
from instructblip.inference import Assistant
from instructblip.models.attention import Attended, attended, watched

RECIPE = "vqav2"  # whose prompt asks


@dataclass(frozen=True)
class Measures:
    """One pair. Attention is by layer and relative to area: 1 where a box has as much as its share of the picture.

    Log-likelihoods are of the true answer: with the picture as it is, with the patches of an object replaced, and
    with the object painted over.
    """

    program: str
    asked: tuple[float, ...]  # attention in the box of the object asked about
    other: tuple[float, ...]  # in the box of the other one of the pair, of its size
    others: tuple[float, ...]  # mean over the boxes of all other objects
    instead: tuple[float, ...]  # in the same box when the other object of the pair is asked about
    whole: float
    without_asked: float
    without_other: float
    painted_asked: float
    painted_other: float
    first: bool  # whether the true answer is likelier than all others of its kind


@torch.inference_mode()
def measure(assistant: Assistant, pair: Pair) -> Measures:
    grid = assistant.model.vision.grid
    own = tokens(assistant, pair.picture())  # (P, V)
    now, instead = (look(assistant, own, prompt(pair, each.text)) for each in (pair.question, pair.instead))
    area = cover(box(pair.asked), grid)
    others = [cover(box(item), grid) for item in pair.scene.objects if item != pair.asked]
    painted = [tokens(assistant, pair.picture(without=item)) for item in (pair.asked, pair.other)]
    shown = [own]
    shown += [
        replaced(own, blank, cover(box(item), grid))
        for item, blank in zip((pair.asked, pair.other), painted, strict=True)
    ]
    answers = ANSWERS[pair.program]
    scores = likelihoods(
        assistant, torch.stack([*shown, *painted]), prompt(pair, pair.question.text), answers
    )  # (5, C)
    truth = answers.index(pair.question.answer)
    whole, without_asked, without_other, painted_asked, painted_other = scores[:, truth].tolist()
    return Measures(
        program=pair.program,
        asked=_listed(density(now, area)),
        other=_listed(density(now, cover(box(pair.other), grid))),
        others=_listed(torch.stack([density(now, each) for each in others]).mean(0)),
        instead=_listed(density(instead, area)),
        whole=whole,
        without_asked=without_asked,
        without_other=without_other,
        painted_asked=painted_asked,
        painted_other=painted_other,
        first=int(scores[0].argmax()) == truth,
    )


def prompt(pair: Pair, question: str) -> str:
    """The question in the words of the recipe's prompt."""
    media, slots = (MediaRef("lens", pair.look),), {"question": question}
    sample = Sample(f"{RECIPE}/lens/{pair.look}", RECIPE, "lens", Form.vqa, media, slots)
    return fill(_wording(), sample)


@cache
def _wording() -> str:
    return recipes.load(RECIPE).protocol("paper").prompts["paper"]


def tokens(assistant: Assistant, picture: Image.Image) -> Tensor:
    """(P, V) image tokens of a picture."""
    pixels = assistant.processor.pixels(picture)[None]  # (1, 3, S, S)
    return assistant.model.encode_images(pixels.to(assistant.model.query_tokens.device))[0]


def look(assistant: Assistant, image: Tensor, text: str) -> Attended:
    """Where the queries look among image tokens (P, V). Alone in its batch, so that nothing beside it moves a bit."""
    device = image.device
    batch = assistant.processor.collator.prompts([text], [], [0]).to(device)
    with watched(assistant.model.qformer) as seen:
        assistant.model.query_embeds(
            None, batch.qformer_input_ids, batch.qformer_attention_mask, image_embeds=image[None, None]
        )
    return attended(seen, assistant.model.vision.grid)


def likelihoods(assistant: Assistant, images: Tensor, text: str, answers: Sequence[str]) -> Tensor:
    """(N, C) log-likelihoods of the answers to one question about image tokens (N, P, V)."""
    collator, count = assistant.processor.collator, len(images)
    batch = collator.prompts([text] * count, [], list(range(count))).to(images.device)
    ids = collator.candidate_ids(answers)
    inputs: dict[str, Any] = batch.inputs() | {"pixel_values": None, "image_embeds": images[:, None]}
    return torch.stack(assistant.model.rank(**inputs, candidates=[ids] * count))


def density(seen: Attended, area: Tensor) -> Tensor:
    """(K,): the share of the patches' attention that lies in an area (rows, columns), over the area's own share."""
    maps = seen.maps.mean(1)  # (K, rows, columns)
    return (maps * area).sum((1, 2)) / maps.sum((1, 2)) / area.mean()


def replaced(own: Tensor, blank: Tensor, area: Tensor) -> Tensor:
    """Image tokens (P, V) whose patches are those of `blank` as far as they lie in the area (rows, columns)."""
    share = area.flatten()[:, None].to(own)  # (patches, 1)
    patches = len(share)
    changed = own[-patches:] * (1 - share) + blank[-patches:] * share
    return torch.cat((own[:-patches], changed))


def _listed(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())
