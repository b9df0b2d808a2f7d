"""Strings to ids: what is supervised is exactly the response and EOS, whatever the language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from instructblip.config import ModelConfig
from instructblip.data.collate import IGNORE, Collator, Row
from instructblip.data.templates import Example
from instructblip.models.tokenizers import tokenizers
from tests.conftest import composed

PIXELS = torch.zeros(3, 8, 8, dtype=torch.uint8)
TEXTS = [
    ("What color is the circle?", "red"),
    ("Q: Is there a blue star? A:", "yes"),
    ("A short image caption:", "a red circle, and a star"),
]


def make(model: str, **limits: int) -> Collator:
    config: ModelConfig = composed("train", f"model={model}").model
    for name, value in limits.items():
        setattr(config.llm, name, value)
    both = tokenizers(config)
    return Collator(both.llm, both.qformer, config.llm, config.qformer, encoder_decoder=model == "tiny_t5")


def rows(texts: list[tuple[str, str]]) -> list[Row]:
    return [Row(Example(a, b, "r", f"r/s/{i}", "t"), 0, group=i) for i, (a, b) in enumerate(texts)]


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_exactly_response_and_eos_are_supervised(model: str) -> None:
    collator = make(model)
    tokenizer: Any = collator.llm_tokenizer
    batch = collator.training(rows(TEXTS), [PIXELS])
    assert batch.labels is not None and batch.loss_weight is not None
    for row, (instruction, response) in enumerate(TEXTS):
        supervised = batch.labels[row][batch.labels[row] != IGNORE].tolist()
        assert supervised[-1] == tokenizer.eos_token_id and supervised.count(tokenizer.eos_token_id) == 1
        assert tokenizer.decode(supervised[:-1]) == response
        seen = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
        if model == "tiny_t5":
            assert tokenizer.decode(seen[:-1]) == instruction and seen[-1] == tokenizer.eos_token_id
        else:
            assert seen[0] == tokenizer.bos_token_id and seen[-len(supervised) :] == supervised
            assert tokenizer.decode(seen[1 : -len(supervised)]) == instruction
        assert torch.equal(batch.loss_weight[row] > 0, batch.labels[row] != IGNORE)
    assert (batch.input_ids[batch.attention_mask == 0] == tokenizer.pad_token_id).all()
    assert batch.pixel_values.dtype is torch.uint8 and batch.group.tolist() == [0, 1, 2]


def test_a_prompt_is_the_beginning_of_its_training_row() -> None:
    collator = make("tiny_llama")
    for instruction, response in TEXTS:
        trained = collator.training(rows([(instruction, response)]), [PIXELS]).input_ids[0].tolist()
        asked = collator.prompts([instruction], [PIXELS], [0]).input_ids[0].tolist()
        assert trained[: len(asked)] == asked
        assert trained[len(asked) :] == collator.candidate_ids([response])[0] + [collator.llm_tokenizer.eos_token_id]


def test_long_prompts_lose_their_beginning_and_long_responses_their_end() -> None:
    collator = make("tiny_llama", max_prompt_length=9, max_response_length=4)
    words = " ".join(["circle"] * 30)
    batch = collator.training(rows([(f"{words} star?", f"red {words}")]), [PIXELS])
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0]  # type: ignore[index]
    tokenizer: Any = collator.llm_tokenizer
    assert len(ids) == 9 + 4 and ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[:9]).endswith("star?")
    response = labels[labels != IGNORE].tolist()
    assert len(response) == 4 and tokenizer.eos_token_id not in response


def test_prompts_of_a_causal_model_are_padded_on_the_left_and_whole() -> None:
    collator = make("tiny_llama", max_prompt_length=4)
    batch = collator.prompts([text for text, _ in TEXTS], [PIXELS, PIXELS], [0, 1, 1])
    assert batch.attention_mask[:, -1].all() and not batch.attention_mask[:, 0].all()
    assert batch.attention_mask.sum(1).min() > 4 and batch.image_index.tolist() == [0, 1, 1]
    assert batch.labels is None and batch.loss_weight is None


def test_the_qformer_reads_the_instruction_with_cls_and_sep() -> None:
    collator = make("tiny_llama")
    batch = collator.training(rows(TEXTS), [PIXELS])
    tokenizer: Any = collator.qformer_tokenizer
    for row, (instruction, _) in enumerate(TEXTS):
        ids = batch.qformer_input_ids[row][batch.qformer_attention_mask[row].bool()].tolist()
        assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
        assert tokenizer.decode(ids[1:-1]).replace(" ", "") == instruction.lower().replace(" ", "")


def test_a_filler_row_counts_nothing() -> None:
    filler = Row(Example("nothing", "nothing", "", "filler", ""), 0, counts=False)
    batch = make("tiny_llama").training([*rows(TEXTS), filler], [PIXELS])
    assert batch.loss_weight is not None and not batch.loss_weight[3].any() and batch.loss_weight[:3].any()


@pytest.mark.parametrize("texts", [("", "red"), ("What?", "  ")])
def test_empty_text_is_refused_with_its_uid(texts: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="r/s/0: empty"):
        make("tiny_llama").training(rows([texts]), [PIXELS])


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_candidates_end_with_eos_only_for_an_encoder_decoder(model: str) -> None:
    collator = make(model)
    ids = collator.candidate_ids(["red", "light blue"])
    ends = [row[-1] == collator.llm_tokenizer.eos_token_id for row in ids]
    assert ends == [model == "tiny_t5"] * 2


def test_a_batch_moves_whole(tiny: Callable[..., Any]) -> None:
    batch = make("tiny_llama").training(rows(TEXTS), [PIXELS]).to(torch.device("meta"))
    assert batch.input_ids.is_meta and batch.pixel_values.is_meta and batch.uids == ("r/s/0", "r/s/1", "r/s/2")
