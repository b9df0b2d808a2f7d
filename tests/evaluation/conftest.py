"""A prepared VSR and VQAv2 of a few rows over plain grey pictures, and a model that says what it sees."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from instructblip import recipes
from instructblip.config.data import PathsConfig
from instructblip.config.evaluation import EvaluateConfig
from instructblip.config.model import ModelConfig
from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample
from instructblip.data.shards import MediaPool, append
from instructblip.data.tables import table_path, write_table
from instructblip.evaluation.parts import Share
from instructblip.evaluation.predict import predict
from instructblip.evaluation.scores import Scores, score
from instructblip.evaluation.trials import Trial, trials

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
PICTURES = 5
ALONE = Share()


@pytest.fixture
def golden() -> Any:
    """Reads official results that lie beside the repository on a developer's machine."""

    def load(name: str) -> Any:
        if not (path := GOLDEN / f"{name}.json").is_file():
            pytest.skip(f"no golden cases in {GOLDEN}")
        return json.loads(path.read_text(encoding="utf-8"))

    return load


class Letters:
    """A tokenizer whose ids are code points, so that a test can read what the model was given."""

    pad_token_id, eos_token_id, bos_token_id, cls_token_id, sep_token_id = 0, 1, 2, 1, 2

    def __call__(self, text: list[str], **options: Any) -> dict[str, Any]:
        return {"input_ids": [[ord(letter) for letter in each] for each in text]}

    def batch_decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(chr(i) for i in row if i > 2) for row in ids.tolist()]


class Seer(nn.Module):
    """Generates the brightness of the row's picture between blanks, without one the prompt; likes candidates by a table
    of its own.

    `batches` collects how many pictures and rows came together, `encoded` the brightness of each picture that was
    encoded, `dies_after` stops it like a kill would.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.llm = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False)))
        self.likes: dict[str, float] = {"yes": -1.0, "true": -2.0, "no": -1.5, "false": -1.5}
        self.batches: list[tuple[int, int]] = []
        self.encoded: list[int] = []
        self.settings: dict[str, Any] = {}
        self.seeds: list[int] = []
        self.dies_after = 1_000

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        bright = pixel_values.float().mean(dim=(1, 2, 3))  # (F,)
        self.encoded.append(int(bright[0]))
        return bright[:, None, None]  # (F, 1, 1)

    def generate(
        self, pixel_values: None, image_embeds: torch.Tensor, image_index: torch.Tensor, input_ids: Any,
        attention_mask: Any, qformer_input_ids: Any, qformer_attention_mask: Any, query_position: Any,
        seeds: list[int], **settings: Any,
    ) -> torch.Tensor:  # fmt: skip
        self._count(image_embeds, image_index)
        self.seeds += seeds
        self.settings = settings
        if image_embeds.size(1) == 0:
            return input_ids
        seen = [int(image_embeds[i].mean()) for i in image_index.tolist()]
        return torch.tensor([[ord(letter) for letter in f" {value:03d} "] for value in seen])  # (B, 5)

    def rank(
        self, pixel_values: None, image_embeds: torch.Tensor, image_index: torch.Tensor, input_ids: Any,
        attention_mask: Any, qformer_input_ids: Any, qformer_attention_mask: Any, query_position: Any,
        candidates: list[list[list[int]]],
    ) -> list[torch.Tensor]:  # fmt: skip
        self._count(image_embeds, image_index)
        return [torch.tensor([self.likes["".join(map(chr, ids))] for ids in row]) for row in candidates]

    def _count(self, image_embeds: torch.Tensor, image_index: torch.Tensor) -> None:
        if len(self.batches) == self.dies_after:
            raise KeyboardInterrupt
        self.batches.append((len(image_embeds), len(image_index)))


@dataclass
class World:
    """Prepared data under `data`, a run, and shortcuts to predict and score with it."""

    data: Path
    run: Path
    model: Seer = field(default_factory=Seer)
    checkpoint: str = "c0ffee"
    ready: list[Trial] = field(default_factory=list)  # of the last prediction, those to be scored

    def config(self, **changes: Any) -> EvaluateConfig:
        paths = PathsConfig(data=str(self.data), runs=str(self.run.parent))
        return EvaluateConfig(run=str(self.run), paths=paths, **({"batch_size": 3} | changes))

    def trials(self, recipe: str, **changes: Any) -> list[Trial]:
        return trials(recipes.load(recipe), self.config(**changes))

    def path(self, recipe: str, **changes: Any) -> Path:
        return self.trials(recipe, **changes)[0].path(self.run, self.config(**changes))

    def predict(self, recipe: str, share: Share = ALONE, **changes: Any) -> Path:
        model = ModelConfig()
        model.vision.image_size = 8
        loaded: Any = SimpleNamespace(
            config=model, model=self.model, checkpoint=self.checkpoint,
            tokenizers=SimpleNamespace(llm=Letters(), qformer=Letters()),
        )  # fmt: skip
        asked, config = self.trials(recipe, **changes), self.config(**changes)
        pools = {"coco": MediaPool(self.data / "media" / "coco")}
        self.ready = predict(loaded, asked, pools, config, self.run, share)
        return asked[0].path(self.run, config)

    def score(self, recipe: str, **changes: Any) -> Scores:
        found = score(self.run, self.trials(recipe, **changes)[0], self.config(**changes))
        assert found
        return found

    def prepare(self, recipe: str, samples: list[Sample]) -> None:
        path = table_path(self.data, recipe, samples[0].split)
        write_table(path, samples)
        entry = {"splits": {samples[0].split: {"table": {"sha256": f"table of {recipe}"}}}}
        path.with_name("manifest.json").write_text(json.dumps(entry), encoding="utf-8")


def picture(value: int) -> bytes:
    data = BytesIO()
    Image.new("RGB", (12, 10), (value, value, value)).save(data, "PNG")
    return data.getvalue()


def statement(number: int, gold: int | None = 1, image: int | None = None) -> Sample:
    """A VSR Sample; statements grow longer with their number."""
    key = str(number % PICTURES if image is None else image)
    slots = {"statement": f"The cup is{' very' * number} near."}
    classes = Candidates(vocab="truefalse")
    media = (MediaRef("coco", key),)
    return Sample(f"vsr/test/{number:02d}", "vsr", "test", Form.classify, media, slots, (), classes, gold)


def question(number: int, answer: str) -> Sample:
    """A VQAv2 Sample on whose answer ten annotators agree."""
    media = (MediaRef("coco", str(number % PICTURES)),)
    slots = {"question": f"How bright is {number:02d}?"}
    return Sample(f"vqav2/val/{number:02d}", "vqav2", "val", Form.vqa, media, slots, (Answer(answer, 10),))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Picture k is k * 40 bright; eleven statements, seven questions, five of them with the true answer."""
    world = World(tmp_path / "data", tmp_path / "runs" / "one")
    pictures = [(str(key), picture(key * 40)) for key in range(PICTURES)]
    append(world.data / "media" / "coco", pictures, shard_size=3)
    world.prepare("vsr", [statement(number, gold=number % 2) for number in range(11)])
    answers = [f"{number % PICTURES * 40:03d}" if number < 5 else "no idea" for number in range(7)]
    world.prepare("vqav2", [question(number, answer) for number, answer in enumerate(answers)])
    return world
