"""This model inside lmms-eval: `lmms-eval --model instructblip_run --model_args pretrained=RUN --tasks gqa`.

lmms-eval finds the class through the entry point in pyproject.toml. It is no requirement of this project (it brings
torchvision), so the module also imports without it. Interface: `lmms_eval.api.model.lmms`, and
`ConfigurableTask.construct_requests` of `lmms_eval.api.task`, as of August 2026.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instructblip.data.processor import open_picture
from instructblip.inference import Assistant, load
from instructblip.recipes import fingerprint

try:
    from lmms_eval.api.model import lmms
except ModuleNotFoundError as absent:
    if (absent.name or "").split(".")[0] != "lmms_eval":
        raise
    lmms = None

NAME = "instructblip_run"  # lmms-eval has an `instructblip` of its own, of transformers' class
GREEDY: dict[str, Any] = {  # what a task does not say: nothing is searched or punished
    "num_beams": 1, "max_new_tokens": 256,  # the models' limit of responses
    "min_new_tokens": 1, "repetition_penalty": 1.0, "length_penalty": 0.0,
}  # fmt: skip
ELSEWHERE = {"until", "do_sample", "temperature", "top_p"}  # read apart from the settings above
IMAGE_TAG = "<image>"


@dataclass(frozen=True)
class Question:
    """A request's text and pictures; `number` is its place among the requests, `source` names it in errors."""

    number: int
    prompt: str
    pictures: list[Any]
    source: str


class Run(lmms or object):  # type: ignore[misc]
    """A run directory, a Hugging Face folder or a LAVIS file, asked in batches of like length.

    Several pictures of a question are shown as the frames of a clip are, the queries of each in a row.
    """

    def __init__(
        self, pretrained: str, device: str = "cuda", batch_size: int | str = 1, max_batch_size: int | None = None,
        **unknown: Any,
    ) -> None:  # fmt: skip
        if lmms is None:
            raise ValueError("lmms-eval is not installed here: pip install lmms-eval, in an environment of its own")
        super().__init__()
        if unknown:
            raise ValueError(f"--model_args {', '.join(sorted(unknown))}: known are pretrained, device, batch_size")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"--batch_size {batch_size}: give a number of 1 or more")
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # lmms-eval itself deals the documents to its processes
        self.device = f"cuda:{os.environ['LOCAL_RANK']}" if several and device == "cuda" else device
        self.batch_size = min(int(batch_size), max_batch_size or int(batch_size))
        self.assistant: Assistant = load(pretrained, self.device)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """A text a request, cut before the first of its `until`.

        Raises ValueError for a temperature other than 0 and 1, which this model's sampling does not have.
        """
        texts = [""] * len(requests)
        kinds: dict[str, tuple[Mapping[str, Any], list[Question]]] = {}
        for number, request in enumerate(requests):
            context, given, doc_to_visual, *place = request.args
            question = self._question(number, context, doc_to_visual, *place)
            kinds.setdefault(json.dumps(given, sort_keys=True), (given, []))[1].append(question)
        for given, questions in kinds.values():
            settings = decoding(given)
            for batch in self._batches(questions):
                seeds = [_seed(each) for each in batch] if "top_p" in settings else None
                ids = self.assistant.model.generate(**self._inputs(batch), **settings, seeds=seeds)
                outputs = self.assistant.tokenizers.llm.batch_decode(ids, skip_special_tokens=True)
                for question, text in zip(batch, outputs, strict=True):
                    texts[question.number] = _until(text, given.get("until", []))
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args[:2], text)
        return texts

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The total log-likelihood of each request's target, and whether greedy decoding would write it.

        Targets of one question are ranked together, its prompt read once. A blank that joins prompt and target is
        the tokenizer's business and left out; an encoder-decoder's target ends with EOS (PAPER B.6).
        """
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        groups: dict[str, list[tuple[int, str]]] = {}
        questions: dict[str, Question] = {}
        for number, request in enumerate(requests):
            context, target, doc_to_visual, *place = request.args
            question = self._question(number, context, doc_to_visual, *place)
            key = json.dumps([question.source, question.prompt])
            questions.setdefault(key, question)
            text = target if isinstance(target, str) else target(self._document(*place))
            groups.setdefault(key, []).append((number, str(text).strip()))
        first = {question.number: groups[key] for key, question in questions.items()}
        for batch in self._batches(list(questions.values())):
            targets = [first[question.number] for question in batch]
            for row, scored in zip(targets, self._ranked(batch, targets), strict=True):
                for (number, _), result in zip(row, scored, strict=True):
                    found[number] = result
        for request, result in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args[:2], result)
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises NotImplementedError: the model was trained on single turns."""
        raise NotImplementedError(
            f"{NAME} answers single turns: {len(requests)} requests of several rounds cannot be asked. Choose a task "
            "of output_type generate_until or multiple_choice."
        )

    @torch.inference_mode()
    def _ranked(
        self, batch: Sequence[Question], targets: Sequence[Sequence[tuple[int, str]]]
    ) -> list[list[tuple[float, bool]]]:
        collator, inputs = self.assistant.processor.collator, self._inputs(batch)
        ids = [collator.candidate_ids([text for _, text in row]) for row in targets]
        scores = self.assistant.model.rank(**inputs, candidates=ids)
        longest = max(len(each) for row in ids for each in row)
        written = self.assistant.model.generate(**inputs, **GREEDY | {"max_new_tokens": longest}).tolist()
        return [
            [(score, greedy[: len(each)] == each) for score, each in zip(row.tolist(), own, strict=True)]
            for row, own, greedy in zip(scores, ids, written, strict=True)
        ]

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[Question]]:
        """Of as many pictures a question and of like length, the longest first."""
        ordered = sorted(questions, key=lambda each: (len(each.pictures), -len(each.prompt), each.number))
        batch: list[Question] = []
        for question in ordered:
            if batch and (len(batch) == self.batch_size or len(batch[0].pictures) != len(question.pictures)):
                yield batch
                batch = []
            batch.append(question)
        if batch:
            yield batch

    def _inputs(self, batch: Sequence[Question]) -> dict[str, Any]:
        shown = [each.pictures[0] if len(each.pictures) == 1 else each.pictures for each in batch]
        tensors = self.assistant.processor(shown, [each.prompt for each in batch])
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _question(self, number: int, context: str, doc_to_visual: Any, doc_id: Any, task: str, split: str) -> Question:
        source = f"{task}/{split}/{doc_id}"
        shown = doc_to_visual(self._document(doc_id, task, split)) if callable(doc_to_visual) else None
        prompt = context.replace(IMAGE_TAG, "").strip()
        if not shown:
            raise ValueError(f"{source} shows no picture, and this model always looks at one")
        if not prompt:
            raise ValueError(f"{source} asks nothing: its context is {context!r}")
        try:
            return Question(number, prompt, [open_picture(each) for each in shown], source)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    def _document(self, doc_id: Any, task: str, split: str) -> Any:
        return self.task_dict[task][split][doc_id]


def manifest() -> Any:
    """What the entry point hands to lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.{Run.__name__}")


def decoding(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `generate` from a task's `generation_kwargs`; a warning names what has no counterpart."""
    settings: dict[str, Any] = GREEDY | {name: given[name] for name in GREEDY if given.get(name) is not None}
    if others := sorted(set(given) - set(GREEDY) - ELSEWHERE):
        warnings.warn(f"{NAME} does not know the generation settings {', '.join(others)}", stacklevel=2)
    temperature = given.get("temperature")
    if given.get("do_sample") and temperature != 0:
        if temperature not in (None, 1):
            raise ValueError(
                f"temperature={temperature}: {NAME} samples at temperature 1; say --gen_kwargs temperature=1"
            )
        settings["top_p"] = float(given.get("top_p") or 1.0)
    return settings


def _until(text: str, until: str | Sequence[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    return text.strip()


def _seed(question: Question) -> int:
    """A question's own, so that its draw does not depend on its batch."""
    return int(fingerprint([question.source, question.prompt]), 16)
