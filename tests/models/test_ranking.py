"""Ranking against brute force: every candidate after its prompt, alone, through the training loss.

Tolerance 1e-5 as for the oracle: fp32 numbers of order 10, summed in another order.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instructblip.models import ranking
from instructblip.models.instructblip import InstructBlip
from instructblip.models.llm import CausalLM, EncoderDecoderLM
from instructblip.models.masks import windows

from .conftest import CANDIDATES, PAD, close, prompt_batch
from .test_llm import drawn, inputs

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
PROMPTS = [[1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 30], [1, 40, 41, 42, 43]]
TRICKY = [
    [[5], [5, 6], [5, 6, 7], [5, 7], [6, 5], [5, 6, 7, 8, 9, 10, 11, 12]],  # beginnings of one another
    [[9, 10, 11], [9], [9, 10, 11], [12, 3, 3, 3], [9]],  # twice the same
    [[3]],
]
FAMILIES = ["llama", "opt", "qwen3", "mistral", "qwen2", "gemma3_text", "t5"]


def brute_force(llm: CausalLM | EncoderDecoderLM, prompt: list[int], candidate: list[int]) -> Tensor:
    if isinstance(llm, EncoderDecoderLM):
        return -llm.token_nll(*inputs(llm, [prompt]), torch.tensor([candidate])).sum()
    return -llm.token_nll(*inputs(llm, [prompt + candidate]), torch.tensor([candidate])).sum()


def equals_brute_force(llm: CausalLM | EncoderDecoderLM, candidates: list[list[list[int]]], left: bool = False) -> None:
    with torch.no_grad():
        ranked = llm.rank(*inputs(llm, PROMPTS, left), candidates)
        for prompt, texts, scores in zip(PROMPTS, candidates, ranked, strict=True):
            close(scores, torch.stack([brute_force(llm, prompt, text) for text in texts]))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_scores_are_those_of_brute_force(kind: str, left: bool) -> None:
    """mistral: all layers see 6 tokens; qwen2: the second; gemma3: the first. The prompts have up to 9."""
    equals_brute_force(drawn(kind), TRICKY, left)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_eager_attention_gives_the_same(kind: str) -> None:
    """It adds the mask to the scores, which a boolean one would pass through unnoticed."""
    llm = drawn(kind)
    llm.model.set_attn_implementation("eager")
    equals_brute_force(llm, TRICKY)


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma3_text"])
def test_the_window_matters_here(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = drawn(kind)
    cut = llm.rank(*inputs(llm, PROMPTS), TRICKY)
    monkeypatch.setattr("instructblip.models.masks.windows", lambda config: dict.fromkeys(windows(config)))
    uncut = llm.rank(*inputs(llm, PROMPTS), TRICKY)
    assert (cut[0] - uncut[0]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["llama", "qwen2", "t5"])
def test_random_candidates_in_any_order_and_any_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, draw = drawn(kind), random.Random(0)
    candidates = [[[draw.randint(3, 6) for _ in range(draw.randint(1, 6))] for _ in range(30)] for _ in PROMPTS]
    equals_brute_force(llm, candidates)
    whole = llm.rank(*inputs(llm, PROMPTS), candidates)
    order = draw.sample(range(30), 30)
    for budget in (1, 7, 40):
        monkeypatch.setattr(ranking, "TOKENS_PER_FORWARD", budget)
        ranked = llm.rank(*inputs(llm, PROMPTS), [[texts[i] for i in order] for texts in candidates])
        for scores, again in zip(whole, ranked, strict=True):
            close(again, scores[order])


@pytest.mark.parametrize("budget", [1, 2048])
def test_equal_candidates_have_equal_numbers(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "TOKENS_PER_FORWARD", budget)
    llm = drawn("llama")
    scores = llm.rank(*inputs(llm, PROMPTS), TRICKY)[1].tolist()
    assert scores[0] == scores[2] and scores[1] == scores[4]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_one_vocabulary_for_all_rows(kind: str) -> None:
    llm = drawn(kind)
    together = llm.rank(*inputs(llm, PROMPTS), [TRICKY[0]] * 3)
    for prompt, scores in zip(PROMPTS, together, strict=True):
        close(llm.rank(*inputs(llm, [prompt]), [TRICKY[0]])[0], scores)


def test_the_whole_model_ranks_as_it_is_trained(llm: str, model: InstructBlip) -> None:
    ranked = model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    for row in range(3):
        batch = prompt_batch(llm, range(row, row + 1))
        for candidate, score in zip(CANDIDATES[row], ranked[row], strict=True):
            labels = torch.tensor([candidate])
            asked = batch | {"labels": labels}
            if llm != "t5":
                ids = torch.cat((batch["input_ids"], labels), dim=1)
                unlabelled = torch.full_like(batch["input_ids"], -100)
                asked |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                asked["labels"] = torch.cat((unlabelled, labels), dim=1)
            close(-model(**asked).sum(), score)


# --- what is evaluated --------------------------------------------------------------------------------------


def evaluated_tokens(rank: Callable[[], Any], llm: CausalLM) -> int:
    """Tokens that went through the layers, padding included."""
    seen: list[int] = []
    layer = llm.model.model.layers[0]
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:2].numel()))
    rank()
    hook.remove()
    return sum(seen)


def ratio(prompt_tokens: int, candidates: list[list[int]]) -> float:
    """Tokens of one by one, prompt and candidate each time, over those of rank."""
    llm = drawn("llama")
    prompt = inputs(llm, [[1] + [20] * (prompt_tokens - 1)])
    one_by_one = sum(prompt_tokens + len(ids) for ids in candidates)
    with torch.no_grad():
        return one_by_one / evaluated_tokens(lambda: llm.rank(*prompt, [candidates]), llm)


def phrases(count: int, lengths: list[int]) -> list[list[int]]:
    """Different phrases whose lengths are drawn from `lengths`; common words are common."""
    draw = random.Random(0)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(3 + int(56 * draw.random() ** 2) for _ in range(draw.choice(lengths)))] = None
    return list(map(list, found))


def test_a_hundred_answers_of_a_dialog_take_25_times_fewer_tokens() -> None:
    """VisDial: 32 queries and about 130 tokens of dialog; answers of 1 to 9 tokens, 4 on average."""
    assert ratio(162, phrases(100, [1, 2, 2, 3, 3, 4, 4, 5, 6, 9])) >= 25


def test_a_vocabulary_of_2423_answers_takes_90_times_fewer_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """MSVD-QA: 4 frames of 32 queries and about 17 tokens of question; words of 1 to 4 tokens."""
    assert ratio(145, phrases(2423, [1, 1, 2, 2, 2, 3, 3, 4])) >= 90
    words = SHARED / "real_samples/msvd_qa/lavis_format/qa_ans2label.json"
    if words.is_file():  # a token every three letters, where LLaMA has about one every four
        texts = list(json.loads(words.read_text()))
        pieces = [[text[at : at + 3] for at in range(0, len(text), 3)] for text in texts]
        number = {piece: 3 + i % 57 for i, piece in enumerate(sorted({p for row in pieces for p in row}))}
        assert ratio(145, [[number[piece] for piece in row] for row in pieces]) >= 90


@pytest.mark.parametrize("budget", [8, 40, 150])
def test_no_forward_exceeds_the_budget(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "TOKENS_PER_FORWARD", budget)
    llm = drawn("llama")
    sizes: list[int] = []
    llm.model.model.layers[0].register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[:2].numel()))
    llm.rank(*inputs(llm, PROMPTS), [phrases(60, [1, 2, 3, 4])] * 3)
    assert budget / 2 < max(sizes[1:]) <= budget


def test_words_of_one_token_need_no_second_forward() -> None:
    llm = drawn("llama")
    with torch.no_grad():
        assert evaluated_tokens(lambda: llm.rank(*inputs(llm, [[1, 20, 21]]), [[[5], [6], [7]]]), llm) == 3


def test_the_prompt_is_read_once(llm: str, model: InstructBlip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "TOKENS_PER_FORWARD", 2)
    widths: list[int] = []
    part = model.llm.model.get_encoder() if llm == "t5" else model.llm.model.model
    part.register_forward_hook(lambda module, args, output: widths.append(output.last_hidden_state.size(1)))
    model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    assert widths[0] == 4 + prompt_batch(llm)["input_ids"].size(1) and max(widths[1:], default=0) <= 3


# --- the official order -------------------------------------------------------------------------------------


class Recited(nn.Module):
    """A language model that answers row by row with given logits (B, positions, W), in either family's manner."""

    def __init__(self, logits: Tensor, encoder_decoder: bool) -> None:
        super().__init__()
        self.recited, self.embedding = logits, nn.Embedding(1, 1)
        self.config = SimpleNamespace(is_encoder_decoder=encoder_decoder, decoder_start_token_id=PAD, model_type="")

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def get_encoder(self) -> Callable[..., Any]:
        return lambda inputs_embeds, attention_mask: SimpleNamespace(last_hidden_state=inputs_embeds)

    def forward(self, past_key_values: Any, **given: Any) -> Any:
        """The cache holds the rows' logits that are left, so that each goes where its row goes."""
        cache = getattr(past_key_values, "self_attention_cache", past_key_values)
        if not cache.layers:
            left = self.recited[:, given.get("inputs_embeds", self.recited[:, :1]).size(1) - 1 :]
            cache.update(left[:, None], left[:, None], 0)
            return SimpleNamespace(logits=left[:, :1], past_key_values=past_key_values)
        left = cache.layers[0].keys[:, 0]
        ids = given.get("input_ids", given.get("decoder_input_ids"))
        return SimpleNamespace(logits=left[:, 1 : 1 + ids.size(1)])


def test_official_losses_and_orders() -> None:
    """Each candidate stands in a row of its own, since the official cases give each its own logits."""
    path = SHARED / "golden/candidate_ranking.json"
    if not path.is_file():
        pytest.skip("no golden cases beside the repository")
    cases = json.loads(path.read_text())["cases"]
    assert len(cases) == 40
    for case in cases:
        logits, labels = torch.tensor(case["logits"]), torch.tensor(case["labels"])
        candidates = [[row[row != -100].tolist()] for row in labels]
        start = case["prompt_length"]
        prompt = torch.zeros(len(labels), start, 1), torch.ones(len(labels), start, dtype=torch.long)
        ranked = {
            "causal_lm": CausalLM(Recited(logits, False)).rank(*prompt, candidates),
            "seq2seq": EncoderDecoderLM(Recited(logits[:, start:], True)).rank(*prompt, candidates),
        }
        for family, losses in (("causal_lm", "sum_nll"), ("seq2seq", "lavis_loss_sum")):
            ours = -torch.cat(ranked[family])
            close(ours, torch.tensor(case[family][losses]))
            assert ours.argsort(stable=True).tolist() == case[family]["lavis_rank_order"]


# --- what cannot be ranked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"full_attention": None}),
        ({"sliding_window": 6}, {"sliding_attention": 6}),
        ({"sliding_window": None, "layer_types": ["full_attention"] * 2}, {"full_attention": None}),
        (
            {"sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"]},
            {"full_attention": None, "sliding_attention": 6},
        ),
    ],
)
def test_windows_of_a_config(config: dict[str, Any], expected: dict[str, int | None]) -> None:
    assert windows(SimpleNamespace(**config)) == expected


def test_recurrent_layers_are_refused() -> None:
    llm = drawn("llama")
    llm.model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="on the linear_attention layers of llama"):
        llm.rank(*inputs(llm, PROMPTS), TRICKY)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_thousands_of_candidates_copy_few_prompts_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree has the prompt's keys and values beside it, and with T5 every candidate is a tree."""
    llm, most = drawn(kind), []
    select = ranking.Prefix.select
    monkeypatch.setattr(ranking, "PROMPT_PER_FORWARD", 60)
    monkeypatch.setattr(
        ranking.Prefix,
        "select",
        lambda self, rows: (most.append(rows.numel() * len(self.attention_mask[0])), select(self, rows))[1],
    )
    equals_brute_force(llm, TRICKY)
    assert max(most) <= 60 and (kind == "llama" or len(most) > 1)


def test_a_shared_vocabulary_is_planted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[int] = []
    plant = ranking._plant
    monkeypatch.setattr(ranking, "_plant", lambda texts, share: (planted.append(len(texts)), plant(texts, share))[1])
    equals_brute_force(drawn("llama"), [TRICKY[0]] * 3)
    assert planted == [6]
