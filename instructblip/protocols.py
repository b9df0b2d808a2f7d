"""What an evaluation protocol fixes: everything that changes a score."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from omegaconf import MISSING


class Mode(Enum):
    generate = "generate"
    rank = "rank"


class RepetitionScope(StrEnum):
    """Whose words the repetition penalty punishes."""

    generated = "generated"  # the response's alone: LAVIS, which generates from embeddings
    all = "all"  # the prompt's too, as transformers 5 does for decoder-only models that are given its ids


class BeamLength(StrEnum):
    """What counts when a beam's summed log-likelihood is divided by length ** length_penalty (PAPER B.3)."""

    with_start = "with_start"  # transformers 4.28, so the paper: the start token and all tokens but EOS
    generated = "generated"  # transformers 5: all tokens; differs only for a response cut at max_new_tokens


@dataclass
class Decoding:
    """Settings of `generate`, named as in transformers; `length_penalty` differs by family in LAVIS."""

    num_beams: int = 5
    max_new_tokens: int = 10  # LAVIS' max_length=10 leaves a causal model 9, as it counts the start token
    min_new_tokens: int = 1
    repetition_penalty: float = 1.5
    repetition_scope: RepetitionScope = RepetitionScope.generated
    length_penalty: dict[str, float] = field(default_factory=dict)  # causal, encoder_decoder
    beam_length: BeamLength = BeamLength.with_start
    top_p: float | None = None  # nucleus sampling with one beam (LAVIS 0.9); null: the likeliest
    seed: int = 0  # of that sampling, together with each Sample's uid


@dataclass
class Evaluation:
    """A protocol: `prompts` has one wording per profile (paper, lavis); a variant replaces the fields it names."""

    split: str = MISSING
    mode: Mode = MISSING
    metric: str = MISSING
    prompts: dict[str, str] = MISSING
    vocabulary: str | None = None  # ranked instead of each Sample's own candidates; one of the recipe's
    decoding: Decoding = field(default_factory=Decoding)
    templates: str | None = None  # family of the wordings prompts=all asks, where it is not the recipe's
    submission: str | None = None  # form the split's server takes, for answers that are not published
    version: int = 1
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
