"""Whether a backbone is fit to be shipped: what its language models answer from the scene in words, and from nothing.

    python -m instructblip.miniature.gate --weights DIR

prints per program the share of exact answers, greedily written, in the prompts of the recipes; per family the
perplexity of all responses; what a linear map reads off its queries, and off the frozen patches; and what of it is not
enough (exit code 1).
Scenes are of the evaluation role: no backbone was told or shown one.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from instructblip.cli import composed
from instructblip.config.model import ModelConfig
from instructblip.data.collate import Collator, Row
from instructblip.data.templates import Example
from instructblip.data.turns import IGNORE
from instructblip.miniature import corpus
from instructblip.miniature.probe import probe, probe_queries
from instructblip.miniature.scenes import Role
from instructblip.miniature.turns import BARE, WORDED, Turn
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.tokenizers import is_encoder_decoder, tokenizers
from instructblip.models.vision import VisionEncoder

FAMILIES = {"llama": "miniature_llama", "t5": "miniature_t5"}  # file name of a language model -> its config
ENOUGH, ABOVE_PRIOR, READ = 0.9, 0.05, 0.95  # told the scene; not told it; off the patches
CONVEYED = 0.7  # off the queries, ours: many times chance, where what is thrown away is at it
DRAWN = ("model.init=null", "model.random_init=true")  # whatever is not given
UNASKED = "model.qformer.instruction_aware=false"
ITEMS = 400  # of a program: at a half, two standard errors are 0.05
KNOWN = 5  # times as many scenes of every kind say what is answered most
BATCH = 64
WRITTEN = ("list-", "dialogue", "detail", "why", "backwards")  # programs whose responses have no one wording
TOLD_BEFORE = frozenset({"coreference"})  # its history tells part of the scene
GREEDY: dict[str, Any] = {"num_beams": 1, "max_new_tokens": 24, "min_new_tokens": 1, "repetition_penalty": 1.0}


class Item(NamedTuple):
    shown: str
    turn: Turn


class Share(NamedTuple):
    """Of exact answers; `prior` is that of the most frequent answer to the same question, or of a blind choice."""

    told: float
    untold: float
    prior: float

    def enough(self, program: str) -> bool:
        return self.told >= ENOUGH and (program in TOLD_BEFORE or self.untold <= self.prior + ABOVE_PRIOR)


def items(seed: int, number: int) -> dict[str, list[Item]]:
    """By program: `number` of every question program, of a scene one, so that answers are as frequent as in scenes."""
    rng = random.Random(f"gate/{seed}")
    found: dict[str, list[Item]] = defaultdict(list)
    for make in corpus.EVERYTHING:
        for _ in range(number * 10):
            shown, said = make(WORDED, Role.evaluation, rng)
            asked = {turn.program: turn for turn in rng.sample(said, len(said))}
            for program, turn in asked.items():
                if not program.startswith(WRITTEN) and len(found[program]) < number:
                    found[program].append(Item(shown, turn))
    return dict(found)


def shares(model: InstructBlip, collator: Collator, seed: int = 0, number: int = ITEMS) -> dict[str, Share]:
    """What the language model answers of each program."""
    known, other = bare(seed + 1, KNOWN * number), bare(seed + 2, number)
    return {
        program: Share(
            told=exact(model, collator, [item.turn.behind(item.shown) for item in asked], asked),
            untold=exact(model, collator, [item.turn.asked for item in asked], asked),
            prior=max(prior(other[program], known[program]), blind([item.turn.asked for item in asked])),
        )
        for program, asked in items(seed, number).items()
    }


def bare(seed: int, scenes: int) -> dict[str, list[Turn]]:
    """By program: all that is asked of so many scenes of every kind, without wordings, which tell nothing."""
    rng = random.Random(f"prior/{seed}")
    found: dict[str, list[Turn]] = defaultdict(list)
    for make in corpus.EVERYTHING:
        for turn in (turn for _ in range(scenes) for turn in make(BARE, Role.evaluation, rng)[1]):
            found[turn.program].append(turn)
    return found


def exact(model: InstructBlip, collator: Collator, prompts: Sequence[str], asked: Sequence[Item]) -> float:
    tokenizer: Any = collator.llm_tokenizer
    said: list[str] = []
    for part in _parts(prompts):
        batch = collator.prompts(part, [], [0] * len(part), sees=False)
        inputs: dict[str, Any] = batch.inputs() | {"pixel_values": None, "image_embeds": torch.empty(1, 0, 0, 0)}
        ids = model.generate(**inputs, **GREEDY, length_penalty=0.0)
        said += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return sum(text == item.turn.said for text, item in zip(said, asked, strict=True)) / len(asked)


def prior(asked: Sequence[Turn], known: Sequence[Turn]) -> float:
    """Exact answers of one who sees no scene, and knows what is answered most: to the question, or at all."""
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for turn in known:
        by_question[turn.asked][turn.said] += 1
    most = Counter(turn.said for turn in known).most_common(1)
    guesses = [(by_question[turn.asked].most_common(1) or most)[0][0] for turn in asked]
    hits = sum(guess == turn.said for guess, turn in zip(guesses, asked, strict=True))
    return max(hits, sum(turn.said == most[0][0] for turn in asked)) / len(asked)


def blind(questions: Sequence[str]) -> float:
    """The chance to choose well among lettered options, or among the words that were read off the picture."""
    return sum(map(_chance, questions)) / len(questions)


def _chance(question: str) -> float:
    options = re.findall(r"\([a-z]\) ", question)
    if read := re.search(r"OCR tokens: ([^.]+)\.", question):
        options = read[1].split(", ")
    return 1 / len(options) if options else 0.0


@torch.no_grad()
def perplexity(model: InstructBlip, collator: Collator, seed: int = 0, number: int = ITEMS) -> float:
    """Of all responses, captions and speech too, each asked by itself."""
    rng = random.Random(f"perplexity/{seed}")
    rows = [_row(*make(WORDED, Role.evaluation, rng)) for make in corpus.EVERYTHING for _ in range(number)]
    total, count = 0.0, 0
    for part in _parts([row for row in rows if row]):
        batch = collator.training(part, [torch.empty(3, 1, 1, dtype=torch.uint8)])
        assert batch.labels is not None
        nll = model.text_nll(batch.input_ids, batch.attention_mask, batch.labels)
        total, count = total + float(nll.sum()), count + int((batch.labels != IGNORE).sum())
    return math.exp(total / count)


def _row(shown: str, said: Sequence[Turn]) -> Row | None:
    return Row(Example(said[0].behind(shown), said[0].said, "corpus", "", ""), 0) if said else None


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))


def judged(weights: Path, families: Sequence[str], number: int = ITEMS) -> dict[str, Any]:
    """Of the files in `weights`: perplexity and programs of each family, the vision encoder's factors, what lacks."""
    found: dict[str, Any] = {"families": {}, "lacking": []}
    for family in families:
        model, collator = language_model(family, weights)
        answered = shares(model, collator, number=number)
        found["lacking"] += [f"{family} {name}" for name, share in answered.items() if not share.enough(name)]
        programs = {name: _rounded(share._asdict()) for name, share in sorted(answered.items())}
        queries = probe_queries(aligned(family, weights))
        found["lacking"] += [f"{family} queries' {name}" for name, value in queries.items() if value < CONVEYED]
        known = {"perplexity": round(perplexity(model, collator, number=number), 3), "queries": _rounded(queries)}
        found["families"][family] = known | {"programs": programs}
    factors = probe(vision_encoder(weights))
    found["lacking"] += [f"vision {name}" for name, value in factors.items() if value < READ]
    return found | {"patches": _rounded(factors)}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def language_model(family: str, weights: Path) -> tuple[InstructBlip, Collator]:
    """The language model in this folder; nothing that is asked here looks at what else is built."""
    config = _config(FAMILIES[family], weights, *DRAWN, llm=family)
    return build(config, seed=0).eval(), Collator.of(config, tokenizers(config), is_encoder_decoder(config.llm))


def vision_encoder(weights: Path) -> VisionEncoder:
    return build(_config(FAMILIES["llama"], weights, *DRAWN, vision="vision"), seed=0).eval().vision


def aligned(family: str, weights: Path) -> InstructBlip:
    """What tuning starts from: queries that read no instruction, after both stages."""
    init = f"model.init=[{weights}/stage1.safetensors,{weights}/stage2_{family}.safetensors]"
    config = _config(FAMILIES[family], weights, init, UNASKED, vision="vision", llm=family)
    return build(config, seed=0).eval()


def _config(model: str, weights: Path, *given: str, **parts: str) -> ModelConfig:
    """With the `parts` named with their files in the folder, no others, and what else is `given`."""
    files = {"vision": "null", "llm": "null"} | {part: f"{weights}/{name}.safetensors" for part, name in parts.items()}
    named = [f"model.{part}.weights={file}" for part, file in files.items()]
    config: ModelConfig = composed("train", f"model={model}", *named, *given).model
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path(__file__).with_name("weights"))
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), metavar="NAME")
    given = parser.parse_args()
    found = judged(given.weights, given.families)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["lacking"] else 0)


if __name__ == "__main__":
    main()
