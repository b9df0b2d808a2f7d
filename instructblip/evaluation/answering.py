"""Questions to a model: prompts rendered, pictures read, texts written or candidates scored. No file is touched."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from instructblip.data.collate import Collator
from instructblip.data.media import BadMedia, decode
from instructblip.data.sample import MediaRef, Sample
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table
from instructblip.data.templates import fill
from instructblip.data.transforms import evaluation_pixels
from instructblip.evaluation.answers import class_scores, verbaliser
from instructblip.evaluation.predictions import Prediction, rows_of
from instructblip.models.loaded import Loaded
from instructblip.names import lookup
from instructblip.protocols import Decoding, Mode
from instructblip.recipes import fingerprint

Identity = tuple[tuple[str, str], ...]  # pool and key of a picture or of each frame


@dataclass(frozen=True, slots=True)
class Question:
    """A Sample as the model meets it: its row in the table, the rendered prompt, the picture or frames it is shown."""

    row: int
    uid: str
    prompt: str
    media: tuple[MediaRef, ...]


def render(table: Table, prompt: str, limit: int | None) -> list[Question]:
    """The first `limit` Samples with their prompts. Raises ValueError when one has no label."""
    questions = []
    for row in rows_of(len(table), limit):
        sample = table.sample(row)
        if not sample.answers and sample.gold is None:
            raise ValueError(
                f"{sample.uid} has neither answers nor a gold candidate: split {sample.split!r} of "
                f"{sample.dataset} is unlabelled and cannot be scored here"
            )
        questions.append(Question(row, sample.uid, fill(prompt, sample), sample.shown))
    return questions


def shuffled(questions: Sequence[Question], seed: int) -> list[Question]:
    """The same questions, none with its own picture: all stand in a random circle and move on by one."""
    pictures = {identity(question): question.media for question in questions}
    if len(pictures) < 2:
        raise ValueError(f"images=shuffled needs two pictures, the {len(questions)} questions share one")
    circle = sorted(pictures)
    random.Random(seed).shuffle(circle)
    other = {key: pictures[after] for key, after in zip(circle, circle[1:] + circle[:1], strict=True)}
    return [replace(question, media=other[identity(question)]) for question in questions]


def by_length(questions: Sequence[Question], batch_size: int) -> list[list[Question]]:
    """Batches of like length, the longest first, so that what does not fit into memory fails at once.

    A pure function of the uids, their prompts and the batch size.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: a batch holds one question at least")
    ordered = sorted(questions, key=lambda question: (-len(question.prompt), question.uid))
    return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]


def decoding(settings: Decoding, family: str) -> dict[str, Any]:
    """Settings of `generate`; LAVIS' length penalty depends on the family of language models."""
    length_penalty = lookup(family, settings.length_penalty, "family in decoding.length_penalty")
    return vars(settings) | {"length_penalty": length_penalty}


def sample_seed(seed: int, uid: str) -> int:
    """A Sample's own seed, so that what is drawn for it depends neither on its batch nor on an interruption."""
    return int(fingerprint([seed, uid]), 16)


@torch.inference_mode()
def answer(
    loaded: Loaded, table: Table, pools: Mapping[str, MediaPool], batch: Sequence[Question],
    mode: Mode, decoding: Mapping[str, Any], llm_limit: int | None = None,
) -> list[Prediction]:  # fmt: skip
    """The model's predictions for one batch; each picture or clip is read and encoded once.

    `decoding` are the settings of `generate`, as the function of that name gives them; ranking has none. `llm_limit`
    is the number of prompt tokens the language model reads, None for all.
    """
    collator = Collator.of(loaded.config, loaded.tokenizers, family(loaded) == "encoder_decoder")
    pixels, image_index = pictures(batch, pools, loaded.config.vision.image_size)
    place = next(loaded.model.parameters()).device
    prompts = [question.prompt for question in batch]
    tensors = collator.prompts(prompts, pixels, image_index, llm_limit).to(place)
    inputs: dict[str, Any] = tensors.inputs()
    if mode is Mode.generate:
        search = {name: value for name, value in decoding.items() if name != "seed"}
        seeds = [sample_seed(decoding["seed"], question.uid) for question in batch]
        ids = loaded.model.generate(**inputs, **search, seeds=seeds)  # (B, <= max_new_tokens)
        texts = [text.strip() for text in loaded.tokenizers.llm.batch_decode(ids, skip_special_tokens=True)]
        predictions = [Prediction(q.uid, q.prompt, output=text) for q, text in zip(batch, texts, strict=True)]
    else:
        predictions = rank(loaded, collator, inputs, batch, [table.sample(question.row) for question in batch])
    return [replace(each, truncated=cut) for each, cut in zip(predictions, tensors.truncated, strict=True)]


def rank(
    loaded: Loaded, collator: Collator, inputs: dict[str, Any], batch: Sequence[Question], samples: Sequence[Sample]
) -> list[Prediction]:
    """The scores of each question's candidates."""
    candidates = [collator.candidate_ids(choices(sample)) for sample in samples]
    scores = [row.tolist() for row in loaded.model.rank(**inputs, candidates=candidates)]
    return [ranked(q, sample, row) for q, sample, row in zip(batch, samples, scores, strict=True)]


def pictures(batch: Sequence[Question], pools: Mapping[str, MediaPool], size: int) -> tuple[list[Tensor], list[int]]:
    """The batch's distinct pictures (3, S, S) or clips (F, 3, S, S), uint8, and which one each question looks at."""
    place: dict[Identity, int] = {}
    pixels: list[Tensor] = []
    for question in batch:
        if (key := identity(question)) not in place:
            place[key] = len(pixels)
            frames = [read_picture(question.uid, ref, pools, size) for ref in question.media]
            pixels.append(frames[0] if len(frames) == 1 else torch.stack(frames))
    return pixels, [place[identity(question)] for question in batch]


def read_picture(uid: str, ref: MediaRef, pools: Mapping[str, MediaPool], size: int) -> Tensor:
    """uint8 (3, S, S). Raises ValueError naming question and picture: a score is over all of them or none."""
    try:
        return evaluation_pixels(decode(lookup(ref.pool, pools, "media pool").read(ref.key)), size)
    except BadMedia as error:
        raise ValueError(f"{uid} cannot be shown its picture {ref.pool}/{ref.key}: {error}") from error


def choices(sample: Sample) -> list[str]:
    """What is ranked: the Sample's own candidates, or every word of every class of its vocabulary."""
    if sample.candidates is None:
        raise ValueError(f"{sample.uid} has no candidates to rank")
    if sample.candidates.vocab is None:
        return list(sample.candidates.items)
    return [word for words in verbaliser(sample.candidates.vocab) for word in words]


def ranked(question: Question, sample: Sample, scores: list[float]) -> Prediction:
    """The candidates' scores, or those of the classes of words. Raises ValueError if not finite."""
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"{question.uid}: the model scores the candidates {scores}; a score must be finite")
    assert sample.candidates is not None
    if vocab := sample.candidates.vocab:
        scores = class_scores(scores, verbaliser(vocab))
    return Prediction(question.uid, question.prompt, scores=scores)


def family(loaded: Loaded) -> str:
    return "encoder_decoder" if loaded.model.llm.model.config.is_encoder_decoder else "causal"


def identity(question: Question) -> Identity:
    return tuple((ref.pool, ref.key) for ref in question.media)
