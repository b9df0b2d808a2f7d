"""`preview=true`: some prepared rows as one HTML file, worded and masked as the model reads them in training."""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from instructblip.config.preparing import PrepareConfig
from instructblip.data.collate import Batch, Collator, Row
from instructblip.data.media import BadMedia, decode
from instructblip.data.sample import Answer, MediaRef, Sample
from instructblip.data.shards import MediaPool
from instructblip.data.steps import drawn_answer
from instructblip.data.tables import Table
from instructblip.data.templates import LETTERS, Example, fill, render, templates
from instructblip.data.turns import IGNORE
from instructblip.files import read_json, replacing
from instructblip.recipes import RECIPES, Recipe

SIDE = 320  # pixels of a picture's longer side on the page
BLANK = "\u00b7"  # shown where a token begins with a blank
WORD_STARTS = ("\u2581", "\u0120")  # of SentencePiece and of byte-level BPE


@dataclass(frozen=True)
class Picture:
    """A data URL, or why there is none."""

    name: str
    role: str
    size: str
    url: str | None
    error: str | None = None


@dataclass(frozen=True)
class Token:
    """A token of the language model; `kind` is prompt, target, end or queries."""

    text: str
    id: int | None
    kind: str


@dataclass(frozen=True)
class Wording:
    """A Sample under one template or prompt; no response: it is asked, not taught."""

    name: str
    instruction: str
    response: str | None


@dataclass(frozen=True)
class Card:
    """A row on the page. `decoder` holds an encoder-decoder's target tokens, apart from the prompt's."""

    sample: Sample
    pictures: list[Picture]
    wording: Wording
    others: list[Wording]
    prompt: list[Token]
    decoder: list[Token]
    qformer: list[Token]
    cut: bool
    drawn: Answer | None
    choices: list[tuple[str, str, bool]]  # letter, text, whether it is right
    meta: str

    @staticmethod
    def confidence(answer: Answer) -> str:
        """How sure the annotators were: `yes 9, maybe 1`."""
        return ", ".join(f"{said} {count}" for said, count in Counter(answer.confidence).items())


@dataclass
class Previewer:
    """What the rows of a recipe are shown with: tables, pictures, and a model's collator."""

    recipe: Recipe
    config: PrepareConfig
    collator: Collator
    pools: dict[str, MediaPool] = field(default_factory=dict)

    def write(self, splits: Sequence[str]) -> Path:
        """The page of the recipe, `<paths.data>/previews/<recipe>.html`. Raises ValueError for an unprepared split."""
        data = Path(self.config.paths.data)
        sections = [(split, *self._section(split, data)) for split in splits]
        loader = FileSystemLoader(Path(__file__).parent)
        page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("preview.html")
        text = page.render(
            recipe=self.recipe,
            sections=sections,
            model=self.config.model,
            seed=self.config.preview_seed,
            queries=self.config.model.qformer.num_query_tokens,
        )
        path = data / "previews" / f"{self.recipe.name}.html"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def _section(self, split: str, data: Path) -> tuple[dict[str, Any], list[Card]]:
        """The split's manifest entry, and the cards of rows drawn from it."""
        table = Table.of(data, self.recipe, split)
        entry = read_json(table.path.with_name("manifest.json"))["splits"].get(split, {})
        draw = random.Random(f"{self.config.preview_seed}/{self.recipe.name}/{split}")
        rows = sorted(draw.sample(range(len(table)), min(self.config.preview_rows, len(table))))
        return entry, [self._card(table.sample(row), split, draw, first=row == rows[0]) for row in rows]

    def _card(self, sample: Sample, split: str, draw: random.Random, first: bool) -> Card:
        evaluated = self.recipe.evaluation is not None and self.recipe.evaluation.split == split
        drawn = None if evaluated or not sample.answers else drawn_answer(sample, draw.random())
        wordings = self._asked(sample) if drawn is None else self._taught(sample, split, drawn)
        if not wordings:
            raise ValueError(f"{self.recipe.name}/{split} has neither templates nor a protocol to word its rows with")
        wording = wordings[0] if drawn is None else draw.choice(wordings)
        batch = self._batch(sample, wording)
        prompt, decoder = self._tokens(batch)
        return Card(
            sample=sample,
            pictures=[self._picture(ref) for ref in sample.media],
            wording=wording,
            others=[each for each in wordings if each != wording] if first or evaluated else [],
            prompt=prompt,
            decoder=decoder,
            qformer=[self._token(self.collator.qformer_tokenizer, id, "prompt") for id in batch.qformer_input_ids[0]],
            cut=bool(batch.truncated[0]),
            drawn=drawn,
            choices=self._choices(sample, evaluated),
            meta=", ".join(f"{name}: {value}" for name, value in sample.meta.items()),
        )

    def _taught(self, sample: Sample, split: str, answer: Answer) -> list[Wording]:
        """The Sample under every template of its family."""
        examples = [
            render(sample, template, answer, self.recipe.response)
            for template in templates(self.recipe.wordings(split))
        ]
        return [Wording(each.template, each.instruction, each.response) for each in examples]

    def _asked(self, sample: Sample) -> list[Wording]:
        """The Sample under every prompt profile of the protocol."""
        prompts: Mapping[str, str] = self.recipe.evaluation.prompts if self.recipe.evaluation else {}
        return [Wording(f"profile {name}", fill(text, sample), None) for name, text in prompts.items()]

    def _batch(self, sample: Sample, wording: Wording) -> Batch:
        size = self.config.model.vision.image_size
        pixels = [torch.zeros(3, size, size, dtype=torch.uint8)]  # the page shows pictures as they are stored
        if wording.response is None:
            return self.collator.prompts([wording.instruction], pixels, [0])
        example = Example(wording.instruction, wording.response, sample.dataset, sample.uid, wording.name)
        return self.collator.training([Row(example, 0)], pixels)

    def _tokens(self, batch: Batch) -> tuple[list[Token], list[Token]]:
        """The language model's row with the queries in their place, and an encoder-decoder's target row."""
        tokenizer, eos = self.collator.llm_tokenizer, self.collator.llm_tokenizer.eos_token_id
        ids: list[int] = batch.input_ids[0].tolist()
        labels: list[int] = [IGNORE] * len(ids) if batch.labels is None else batch.labels[0].tolist()

        def row(ids: list[int], labels: list[int]) -> Iterator[Token]:
            for id, label in zip(ids, labels, strict=True):
                kind = "prompt" if label == IGNORE else "end" if label == eos else "target"
                yield self._token(tokenizer, id, kind)

        apart = self.collator.encoder_decoder and batch.labels is not None
        prompt = list(row(ids, [IGNORE] * len(ids) if apart else labels))
        place = 0 if batch.query_position is None else int(batch.query_position[0])
        prompt.insert(place, Token(f"{self.collator.qformer.num_query_tokens} queries", None, "queries"))
        return prompt, list(row(labels, labels)) if apart else []

    def _token(self, tokenizer: Any, id: int | Tensor, kind: str) -> Token:
        piece: str = tokenizer.convert_ids_to_tokens(int(id))
        begins = piece.startswith(WORD_STARTS)
        text = piece if piece in tokenizer.all_special_tokens else tokenizer.decode([int(id)])
        text = text.strip(" ") if begins else text
        return Token((BLANK if begins else "") + (text or piece), int(id), kind)

    def _choices(self, sample: Sample, evaluated: bool) -> list[tuple[str, str, bool]]:
        """Letter, text and whether it is right: the Sample's candidates, or the classes of a vocabulary."""
        ranked = self.recipe.evaluation.vocabulary if evaluated and self.recipe.evaluation else None
        if ranked:
            return [("", f"all of the vocabulary {ranked}", False)]
        if sample.candidates is None:
            return []
        items: Sequence[str] = sample.candidates.items
        if sample.candidates.vocab is not None:
            vocabulary: Any = OmegaConf.load(RECIPES / "vocab" / f"{sample.candidates.vocab}.yaml")
            items = [" or ".join(words) for words in vocabulary["classes"]]
        letters = [f"({letter})" for letter in LETTERS] + [""] * len(items)
        return [(letters[place], item, place == sample.gold) for place, item in enumerate(items)]

    def _picture(self, ref: MediaRef) -> Picture:
        name = f"{ref.pool}/{ref.key}"
        try:
            if ref.pool not in self.pools:
                self.pools[ref.pool] = MediaPool(Path(self.config.paths.data) / "media" / ref.pool)
            image = decode(self.pools[ref.pool].read(ref.key))
        except BadMedia as error:
            return Picture(name, ref.role, "", None, str(error))
        size = f"{image.width} x {image.height}"
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        content = BytesIO()
        image.save(content, "JPEG", quality=85)
        return Picture(name, ref.role, size, f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}")
