"""Questions to a model: pictures read, texts written or candidates scored. No file is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from instructblip.data.collate import Collator
from instructblip.data.sample import Sample
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table
from instructblip.evaluation.answers import class_scores, verbaliser
from instructblip.evaluation.features import Features
from instructblip.evaluation.predictions import Prediction
from instructblip.evaluation.questions import Question
from instructblip.models.loaded import Loaded
from instructblip.names import lookup
from instructblip.protocols import Decoding, Mode
from instructblip.recipes import fingerprint

TOP = 10  # answers of a vocabulary that are written down with their scores (ours)


@dataclass(frozen=True)
class Vocabulary:
    """A closed list of answers with their ids, tokenised once for all questions."""

    answers: tuple[str, ...]
    ids: list[list[int]]

    @cached_property
    def places(self) -> dict[str, int]:
        return {answer: place for place, answer in enumerate(self.answers)}


def decoding(settings: Decoding, family: str) -> dict[str, Any]:
    """Settings of `generate`; LAVIS' length penalty depends on the family of language models."""
    length_penalty = lookup(family, settings.length_penalty, "family in decoding.length_penalty")
    return vars(settings) | {"length_penalty": length_penalty}


def sample_seed(seed: int, uid: str) -> int:
    """A Sample's own seed, so that what is drawn for it depends neither on its batch nor on an interruption."""
    return int(fingerprint([seed, uid]), 16)


@torch.no_grad()  # not inference_mode, whose tensors a sharded model could not train on afterwards
def answer(
    loaded: Loaded, table: Table, pools: Mapping[str, MediaPool], batch: Sequence[Question],
    mode: Mode, decoding: Mapping[str, Any], llm_limit: int | None = None,
    vocabulary: Vocabulary | None = None, features: Features | None = None,
) -> list[Prediction]:  # fmt: skip
    """The model's predictions for one batch; each picture or clip is read and encoded once.

    `decoding` are the settings of `generate`, as the function of that name gives them; ranking has none. `llm_limit`
    is the number of prompt tokens the language model reads, None for all. A `vocabulary` is ranked in place of the
    Samples' own candidates. `features` keeps pictures for later batches and changes no bit.
    """
    features = features or Features(loaded.model, loaded.config.vision.image_size, keep=0)
    embeds, image_index = features.of(batch, pools)
    place = next(loaded.model.parameters()).device
    prompts = [question.prompt for question in batch]
    sees = embeds.size(1) > 0  # else nothing is read by the Q-Former, which has no picture to look at
    tensors = collator(loaded).prompts(prompts, [], image_index, llm_limit, sees).to(place)
    inputs: dict[str, Any] = tensors.inputs() | {"pixel_values": None, "image_embeds": embeds}
    if mode is Mode.generate:
        search = {name: value for name, value in decoding.items() if name != "seed"}
        seeds = [sample_seed(decoding["seed"], question.uid) for question in batch]
        ids = loaded.model.generate(**inputs, **search, seeds=seeds)  # (B, <= max_new_tokens)
        texts = [text.strip() for text in loaded.tokenizers.llm.batch_decode(ids, skip_special_tokens=True)]
        predictions = [Prediction(q.uid, q.prompt, output=text) for q, text in zip(batch, texts, strict=True)]
    else:
        predictions = rank(loaded, inputs, batch, [table.sample(question.row) for question in batch], vocabulary)
    return [replace(each, truncated=cut) for each, cut in zip(predictions, tensors.truncated, strict=True)]


def rank(
    loaded: Loaded, inputs: dict[str, Any], batch: Sequence[Question], samples: Sequence[Sample],
    vocabulary: Vocabulary | None,
) -> list[Prediction]:  # fmt: skip
    """The scores of each question's candidates, of a vocabulary the best ones."""
    if vocabulary is not None:
        scores = loaded.model.rank(**inputs, candidates=[vocabulary.ids] * len(batch))
        return [best(q, s, row.tolist(), vocabulary) for q, s, row in zip(batch, samples, scores, strict=True)]
    candidates = [collator(loaded).candidate_ids(choices(sample)) for sample in samples]
    scores = loaded.model.rank(**inputs, candidates=candidates)
    return [ranked(q, sample, row.tolist()) for q, sample, row in zip(batch, samples, scores, strict=True)]


def tokenized(loaded: Loaded, answers: Sequence[str]) -> Vocabulary:
    """Answers to rank for every question alike. Raises ValueError naming one without text."""
    return Vocabulary(tuple(answers), collator(loaded).candidate_ids(answers))


def collator(loaded: Loaded) -> Collator:
    return Collator.of(loaded.config, loaded.tokenizers, family(loaded) == "encoder_decoder")


def choices(sample: Sample) -> list[str]:
    """What is ranked: the Sample's own candidates, or every word of every class of its vocabulary."""
    if sample.candidates is None:
        raise ValueError(f"{sample.uid} has no candidates to rank")
    if sample.candidates.vocab is None:
        return list(sample.candidates.items)
    return [word for words in verbaliser(sample.candidates.vocab) for word in words]


def ranked(question: Question, sample: Sample, scores: list[float]) -> Prediction:
    """The candidates' scores, or those of the classes of words. Raises ValueError if not finite."""
    _require_finite(question, scores)
    assert sample.candidates is not None
    if vocab := sample.candidates.vocab:
        scores = class_scores(scores, verbaliser(vocab))
    return Prediction(question.uid, question.prompt, scores=scores)


def best(question: Question, sample: Sample, scores: list[float], vocabulary: Vocabulary) -> Prediction:
    """The likeliest answers of a vocabulary, of equals the first, and how likely the true ones are."""
    _require_finite(question, scores)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:TOP]
    top = {vocabulary.answers[index]: scores[index] for index in order}
    known = [vocabulary.places[each.text] for each in sample.answers if each.text in vocabulary.places]
    truth = {vocabulary.answers[index]: scores[index] for index in known}
    return Prediction(question.uid, question.prompt, output=vocabulary.answers[order[0]], top=top, truth=truth)


def _require_finite(question: Question, scores: list[float]) -> None:
    if not all(map(math.isfinite, scores)):
        told = str(scores) if len(scores) <= TOP else f"{', '.join(map(str, scores[:TOP]))}, ..."
        raise ValueError(f"{question.uid}: the model scores the candidates {told}; a score must be finite")


def family(loaded: Loaded) -> str:
    return "encoder_decoder" if loaded.model.llm.model.config.is_encoder_decoder else "causal"
