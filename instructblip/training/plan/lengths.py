"""How long the texts of a mixture are, in tokens: from the prepared tables, else an estimate that is marked as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instructblip.data.shares import Share
from instructblip.data.steps import CHARS_PER_TOKEN, WORDING_TOKENS
from instructblip.data.tables import Table, table_path

LOOKED_AT = 2000  # rows of a table, evenly spaced (ours)
ENDS = 2  # BOS or EOS of the language model's texts; [CLS] and [SEP] of the Q-Former's
# Prompt and response tokens, EOS among them: estimates of ours from the datasets' papers and the templates.
ESTIMATES = {
    "coco_caption": (10, 14), "web_capfilt": (10, 14), "textcaps": (60, 16), "vqav2": (20, 4), "okvqa": (20, 4),
    "aokvqa": (25, 4), "ocrvqa": (22, 6), "vqav2_vqg": (18, 12), "okvqa_vqg": (18, 12), "aokvqa_vqg": (18, 12),
    "llava_conversation": (25, 60), "llava_detail": (18, 130), "llava_reasoning": (30, 110),
}  # fmt: skip
ANY = (20, 10)  # of a dataset that is neither prepared nor listed


@dataclass(frozen=True)
class Lengths:
    """Mean tokens a sample of prompt and response; `estimated` names the datasets that were not looked at."""

    prompt: float
    response: float
    estimated: tuple[str, ...]


def mean_lengths(shares: Sequence[Share], data: Path) -> Lengths:
    """Over the mixture, each dataset by its probability."""
    prompt = response = 0.0
    estimated = []
    for share in shares:
        path = table_path(data, share.recipe.table, share.split)
        if path.is_file():
            known = _looked_at(Table.of(data, share.recipe, share.split))
        else:
            known = ESTIMATES.get(share.recipe.name, ANY)
            estimated.append(share.recipe.name)
        prompt += share.probability * known[0]
        response += share.probability * known[1]
    return Lengths(prompt, response, tuple(estimated))


def _looked_at(table: Table) -> tuple[float, float]:
    rows = np.unique(np.linspace(0, len(table) - 1, LOOKED_AT).astype(np.int64))
    instruction, response = table.chars(rows).mean(axis=0) / CHARS_PER_TOKEN
    return instruction + WORDING_TOKENS, response + ENDS / 2
