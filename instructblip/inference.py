"""A trained model in five lines, for notebooks and other programs.

from instructblip.inference import load

model = load("runs/miniature-s42")
model.answer("photo.jpg", "What color is the circle?")
model.rank("photo.jpg", "What color is the circle?", ["red", "blue"])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from instructblip.config.model import ModelConfig
from instructblip.data.collate import Collator
from instructblip.data.processor import Picture, Processor, Shown
from instructblip.models.attention import Attended, attended, watched
from instructblip.models.convert import open_source
from instructblip.models.huggingface import write_folder
from instructblip.models.instructblip import InstructBlip
from instructblip.models.loaded import Loaded
from instructblip.models.lora import merge_adapters
from instructblip.models.tokenizers import Tokenizers, tokenizers
from instructblip.protocols import Decoding
from instructblip.recipes import plain
from instructblip.training.run import load_model

LENGTH_PENALTY = {"causal": 0.0, "encoder_decoder": -1.0}  # LAVIS predict_answers
HALF_A_LETTER = "\N{REPLACEMENT CHARACTER}"  # what bytes decode to whose letter is not yet complete
Scored = list[tuple[str, float]]  # text and its total log-likelihood


class Said:
    """Tokens (B,) on their way from the thread that writes them, None after the last; `closed` ends the writing."""

    def __init__(self) -> None:
        self.tokens: SimpleQueue[Tensor | None] = SimpleQueue()
        self.closed = False

    def put(self, value: Tensor) -> None:
        if self.closed:
            raise InterruptedError("nobody listens any more")
        self.tokens.put(value)

    def end(self) -> None:
        self.tokens.put(None)


@dataclass(frozen=True)
class Assistant:
    """Answers instructions about pictures; a list of pictures is a clip, its frames in order."""

    model: InstructBlip
    processor: Processor
    tokenizers: Tokenizers
    config: ModelConfig

    @classmethod
    def of(cls, loaded: Loaded) -> Assistant:
        """Of a model that is on its device already."""
        encoder_decoder = bool(loaded.model.llm.model.config.is_encoder_decoder)
        collator = Collator.of(loaded.config, loaded.tokenizers, encoder_decoder)
        processor = Processor(collator, loaded.config.vision.image_size)
        return cls(loaded.model, processor, loaded.tokenizers, loaded.config)

    @property
    def family(self) -> str:
        return "encoder_decoder" if self.processor.collator.encoder_decoder else "causal"

    def answer(self, images: Shown, instruction: str, **decoding: Any) -> str:
        """One answer by beam search; `decoding` overrides single fields of `recipes.Decoding`."""
        return self._write(self._inputs(images, instruction), **decoding)

    def stream(self, images: Shown, instruction: str, **decoding: Any) -> Iterator[str]:
        """The answer while it is written with one beam: all of it so far, and at last what `answer` gives.

        Who stops listening stops the writing too.
        """
        inputs, said, tokens = self._inputs(images, instruction), Said(), []
        with ThreadPoolExecutor(max_workers=1) as pool:
            writing = pool.submit(self._write, inputs, **{"num_beams": 1, **decoding}, streamer=said)
            writing.add_done_callback(lambda _: said.end())
            try:
                for token in iter(said.tokens.get, None):
                    tokens.append(token)
                    yield self._text(torch.stack(tokens, dim=1)).rstrip(HALF_A_LETTER)
            finally:
                said.closed = True
            yield writing.result()

    def answers(self, images: Shown, instruction: str, count: int = 5, top_p: float = 0.9, seed: int = 0) -> Scored:
        """Up to `count` different answers drawn from the nucleus, with their log-likelihoods, the likeliest first."""
        inputs = self._inputs(images, instruction)
        drawn = [self._write(inputs, num_beams=1, top_p=top_p, seeds=[seed + number]) for number in range(count)]
        return self.rank(images, instruction, list(dict.fromkeys(text for text in drawn if text)))

    def rank(self, images: Shown, instruction: str, candidates: Sequence[str]) -> Scored:
        """The candidates with their total log-likelihoods, best first; equal ones keep their order."""
        ids = self.processor.collator.candidate_ids(list(candidates))
        with torch.inference_mode():
            (scores,) = self.model.rank(**self._inputs(images, instruction), candidates=[ids])
        pairs = zip(candidates, scores.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def features(self, images: Shown, instruction: str) -> Tensor:
        """(Q, D) the projected queries, what the language model is shown; of a clip (F * Q, D)."""
        with torch.inference_mode():
            return self._queries(images, instruction)[0]

    def attention(self, image: Picture, instruction: str) -> Attended:
        """Where the queries look in a picture. Raises ValueError for a clip."""
        if isinstance(image, list | tuple):
            raise ValueError(f"attention is shown over one picture, not over a clip of {len(image)}; give one frame")
        with torch.inference_mode(), watched(self.model.qformer) as seen:
            self._queries(image, instruction)
        return attended(seen, self.model.vision.grid)

    def save_pretrained(self, folder: str | Path) -> None:
        """A folder that `InstructBlipForConditionalGeneration` and `InstructBlipProcessor` load as it is.

        Adapters are merged in this model too. Raises ValueError when the folder is there already.
        """
        if Path(folder).exists():
            raise ValueError(f"{folder} is there already; choose another name")
        merge_adapters(self.model)
        write_folder(self.model, self.config, self.tokenizers, Path(folder))

    def _inputs(self, images: Shown, instruction: str) -> dict[str, Any]:
        device = next(self.model.parameters()).device
        return {name: tensor.to(device) for name, tensor in self.processor(images, instruction).items()}

    def _queries(self, images: Shown, instruction: str) -> Tensor:
        """(1, F * Q, D)"""
        inputs = self._inputs(images, instruction)
        names = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "image_index")
        return self.model.query_embeds(**{name: inputs[name] for name in names})

    @torch.inference_mode()
    def _write(self, inputs: dict[str, Any], **decoding: Any) -> str:
        defaults = plain(Decoding()) | {"length_penalty": LENGTH_PENALTY[self.family]}
        settings: dict[str, Any] = {**{name: defaults[name] for name in defaults if name != "seed"}, **decoding}
        return self._text(self.model.generate(**inputs, **settings))

    def _text(self, ids: Tensor) -> str:
        """Of the first row of ids (B, T)."""
        return self.tokenizers.llm.batch_decode(ids, skip_special_tokens=True)[0].strip()


def load(
    path: str | Path, device: str = "cpu", config: str | Path | None = None, overrides: Sequence[str] = ()
) -> Assistant:
    """The model of a run directory, of a Hugging Face folder, or of a LAVIS file.

    A LAVIS file does not say how its model is built: `config` is a YAML with `model:` (a run's config.yaml, or one
    of your own) and `overrides` such as `model.llm.weights=DIR` name what the file does not hold.
    """
    folder = Path(path)
    if (folder / "config.yaml").is_file():
        return Assistant.of(load_model(folder, device))
    source = open_source(folder, Path(config) if config else None, list(overrides))
    model = source.model().to(device).eval()
    return Assistant.of(Loaded(source.config, model, tokenizers(source.config), ""))
