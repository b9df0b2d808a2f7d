"""Candidates as a token tree against one by one, on a toy LLaMA: `python experiments/benchmarks/ranking.py`.

Both sides score the same candidates after the same prompts with the same fp32 weights on one CPU thread, and must
agree to 1e-4. One by one runs prompt and candidate together, in batches of 32, logits at the candidate alone. Random
weights and random tokens: what is claimed is the ratio of times, not the times.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import torch
from torch import Tensor

from instructblip.config.model import LLMConfig
from instructblip.models.llm import IGNORE, CausalLM, language_model

WORDS = 1000
CONFIG = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8,
    "vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BATCH = 32
CASES = {  # prompt tokens with queries; candidates; their lengths
    "dialog: 100 answers": (162, 100, (1, 2, 2, 3, 3, 4, 4, 5, 6, 9)),
    "options: 4 texts": (80, 4, (1, 2, 3)),
    "vocabulary: 500 words": (145, 500, (1, 1, 2, 2, 2, 3, 3, 4)),
}


def phrases(count: int, lengths: tuple[int, ...]) -> list[list[int]]:
    """Different phrases in which some words are common, as in text."""
    draw = random.Random(0)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(3 + int((WORDS - 3) * draw.random() ** 3) for _ in range(draw.choice(lengths)))] = None
    return list(map(list, found))


def one_by_one(llm: CausalLM, prompt: Tensor, candidates: list[list[int]]) -> Tensor:
    """Log-likelihoods (M,), each with the whole prompt (1, S, D) run again."""
    embed, scores = llm.model.get_input_embeddings(), []
    for at in range(0, len(candidates), BATCH):
        chunk = candidates[at : at + BATCH]
        width = max(map(len, chunk))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in chunk])
        labels = torch.tensor([row + [IGNORE] * (width - len(row)) for row in chunk])
        embeds = torch.cat((prompt.expand(len(chunk), -1, -1), embed(ids)), dim=1)
        mask = torch.cat((torch.ones(len(chunk), prompt.size(1), dtype=torch.long), (labels != IGNORE).long()), dim=1)
        scores.append(-llm.token_nll(embeds, mask, labels).sum(dim=1))
    return torch.cat(scores)


def fastest(run: Callable[[], Tensor], times: int = 3) -> tuple[float, Tensor]:
    """Seconds of the fastest of several runs, and what it gave."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        taken.append(time.perf_counter() - start)
    return min(taken), result


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    llm = language_model(LLMConfig(type="llama", tokenizer="", eos_token="", pad_token="", config=CONFIG)).eval()
    assert isinstance(llm, CausalLM)
    for name, (length, count, lengths) in CASES.items():
        candidates = phrases(count, lengths)
        prompt = torch.randn(1, length, CONFIG["hidden_size"])
        mask = torch.ones(1, length, dtype=torch.long)
        tree, scores = fastest(lambda: llm.rank(prompt, mask, [candidates])[0])  # noqa: B023 (called at once)
        slow, expected = fastest(lambda: one_by_one(llm, prompt, candidates))  # noqa: B023
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
        print(f"{name}, {length} prompt tokens: {slow / tree:.1f} times faster")


if __name__ == "__main__":
    main()
