"""Strings to ids: what is supervised is exactly the response and EOS, whatever the language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from instructblip.choices import PromptFormat
from instructblip.config.model import ModelConfig
from instructblip.data.collate import Collator, Row
from instructblip.data.templates import Example
from instructblip.data.turns import IGNORE
from instructblip.models.tokenizers import tokenizers
from tests.conftest import ROOT, composed
from tests.fixtures.language_tokenizers import FAMILIES

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
    return Collator(both.llm, both.qformer, config.llm, config.qformer, encoder_decoder=model.endswith("t5"))


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


def test_an_empty_response_is_refused_with_its_uid() -> None:
    with pytest.raises(ValueError, match="r/s/0: empty response"):
        make("tiny_llama").training(rows([("What?", "  ")]), [PIXELS])


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_an_empty_instruction_leaves_what_frames_it(model: str) -> None:
    """The picture alone: a caption is trained and asked for without a word."""
    collator = make(model)
    llm: Any = collator.llm_tokenizer
    framed = [llm.eos_token_id] if model == "tiny_t5" else [llm.bos_token_id]
    asked = collator.prompts(["", "a star?"], [PIXELS], [0, 0])
    assert asked.input_ids[0][asked.attention_mask[0].bool()].tolist() == framed
    bert = asked.qformer_input_ids[0][asked.qformer_attention_mask[0].bool()].tolist()
    assert collator.qformer_tokenizer.convert_ids_to_tokens(bert) == ["[CLS]", "[SEP]"]
    batch = collator.training(rows([("", "a star"), *TEXTS]), [PIXELS])
    assert batch.labels is not None
    said = batch.labels[0][batch.labels[0] != IGNORE].tolist()
    assert llm.decode(said[:-1]) == "a star" and batch.tokens[0] == (1, len(said))
    if model == "tiny_llama":
        without = make(model)
        without.llm.bos_token = None  # such a model reads the queries alone
        assert without.prompts([""], [PIXELS], [0]).input_ids.shape == (1, 0)


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_candidates_end_with_eos_only_for_an_encoder_decoder(model: str) -> None:
    collator = make(model)
    ids = collator.candidate_ids(["red", "light blue"])
    ends = [row[-1] == collator.llm_tokenizer.eos_token_id for row in ids]
    assert ends == [model == "tiny_t5"] * 2


def test_a_batch_moves_whole(tiny: Callable[..., Any]) -> None:
    batch = make("tiny_llama").training(rows(TEXTS), [PIXELS]).to(torch.device("meta"))
    assert batch.input_ids.is_meta and batch.pixel_values.is_meta and batch.uids == ("r/s/0", "r/s/1", "r/s/2")


# --- the policy of each language model, on stand-ins of its tokenizer -----------------------------------------

QWEN3 = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
CHAT = {  # what a prompt is, as text, around the instruction
    "qwen3_8b": QWEN3,
    "qwen3_0.6b": QWEN3,
    "llama3_8b": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
}
FIRST = {  # BOS or its absence, in ids; then what ends a response
    "vicuna7b": ([2], 2),
    "vicuna13b": ([2], 2),
    "flant5xl": ([], 1),
    "flant5xxl": ([], 1),
    "opt2.7b": ([2], 2),
    "flant5base": ([], 1),
    "flant5large": ([], 1),
    "qwen3_8b": ([151644], 151645),
    "qwen3_0.6b": ([151644], 151645),
    "llama3_8b": ([128000, 128006], 128009),
}


@pytest.fixture(params=sorted(FIRST))
def llm(request: pytest.FixtureRequest) -> str:
    return request.param


def published(llm: str, folder: Path, **changes: Any) -> Collator:
    """The collator of `conf/model/llm`'s YAML."""
    FAMILIES[llm]().save(str(folder / "llm.json"))
    config: ModelConfig = composed("train", "experiment=vicuna7b", f"model/llm={llm}", "paths.weights=weights").model
    config.llm = replace(config.llm, tokenizer=str(folder / "llm.json"), **changes)
    config.qformer.tokenizer = str(ROOT / "instructblip/miniature/qformer_tokenizer.json")
    both = tokenizers(config)
    return Collator(both.llm, both.qformer, config.llm, config.qformer, encoder_decoder=llm.startswith("flan"))


def decoded(collator: Collator, ids: list[int]) -> str:
    tokenizer: Any = collator.llm_tokenizer
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def test_all_yamls_are_tested() -> None:
    assert {file.stem for file in (ROOT / "conf/model/llm").glob("*.yaml")} == set(FIRST)


def test_the_first_and_last_ids_of_a_row(llm: str, tmp_path: Path) -> None:
    collator, (first, eos) = published(llm, tmp_path), FIRST[llm]
    instruction = collator._ids(collator.llm_tokenizer, [TEXTS[0][0]])[0]
    batch = collator.training(rows(TEXTS), [PIXELS])
    ids = batch.input_ids[0].tolist()
    assert ids[: len(first)] == first
    if llm not in CHAT:
        assert ids[len(first) : len(first) + len(instruction)] == instruction
    assert batch.labels is not None
    supervised = batch.labels[0][batch.labels[0] != IGNORE].tolist()
    assert supervised[-1] == eos and supervised.count(eos) == 1
    if llm.startswith("vicuna"):
        assert (collator.llm_tokenizer.pad_token_id, collator.llm_tokenizer.bos_token_id) == (32_000, 2)
        assert getattr(collator.llm_tokenizer, "unk_token_id") == 2  # noqa: B009
        assert (batch.input_ids[batch.attention_mask == 0] == 32_000).all()


def test_prompt_and_response_join_to_the_intended_string(llm: str, tmp_path: Path) -> None:
    """Tokenised apart: `Short answer:` and `red` give `Short answer: red`, with whatever blank the tokenizer needs."""
    collator = published(llm, tmp_path)
    texts = [("Question: What color is it? Short answer:", "red"), ("Is there a blue star?", "yes, to the left")]
    batch = collator.training(rows(texts), [PIXELS])
    asked = collator.prompts([instruction for instruction, _ in texts], [PIXELS], [0, 0])
    for row, (instruction, response) in enumerate(texts):
        ids = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
        prompt = asked.input_ids[row][asked.attention_mask[row].bool()].tolist()
        assert ids[: len(prompt)] == prompt
        if collator.encoder_decoder:
            assert batch.labels is not None
            labels = batch.labels[row][batch.labels[row] != IGNORE].tolist()
            assert (decoded(collator, ids[:-1]), decoded(collator, labels[:-1])) == (instruction, response)
            assert labels == collator.candidate_ids([response])[0]
            continue
        assert ids[len(prompt) : -1] == collator.candidate_ids([response])[0]
        if llm in CHAT:
            assert decoded(collator, ids[:-1]) == CHAT[llm][0] + instruction + CHAT[llm][1] + response
        else:
            assert decoded(collator, ids[1:-1]) == f"{instruction} {response}"


def test_the_queries_of_a_chat_stand_inside_the_user_turn(llm: str, tmp_path: Path) -> None:
    collator = published(llm, tmp_path)
    for batch in (
        collator.training(rows(TEXTS), [PIXELS]),
        collator.prompts([instruction for instruction, _ in TEXTS], [PIXELS], [0, 0, 0]),
    ):
        if llm not in CHAT:
            assert batch.query_position is None
            continue
        assert batch.query_position is not None
        for row, at in enumerate(batch.query_position.tolist()):
            before, after = batch.input_ids[row, :at], batch.input_ids[row, at:]
            assert decoded(collator, before[batch.attention_mask[row, :at].bool()].tolist()) == CHAT[llm][0]
            assert decoded(collator, after.tolist()).startswith(TEXTS[row][0] + CHAT[llm][1])


def test_a_long_instruction_is_cut_inside_its_turn(llm: str, tmp_path: Path) -> None:
    collator = published(llm, tmp_path)
    whole = collator.prompts(["is it?"], [PIXELS], [0]).input_ids[0].tolist()
    batch = collator.training(rows([("blue " * 300 + "is it?", "red"), ("star?", "no")]), [PIXELS])
    ids = batch.input_ids[0].tolist()
    head, tail = collator._turn
    prompt = ids if collator.encoder_decoder else ids[:128]
    assert len(prompt) == 128 and prompt[: len(head)] == whole[: len(head)]
    assert decoded(collator, prompt[len(head) : 128 - len(tail)]).endswith("blue is it?")
    assert prompt[128 - len(tail) :] == tail and batch.truncated == (True, False)


def test_a_dataset_cannot_write_special_tokens(llm: str, tmp_path: Path) -> None:
    collator = published(llm, tmp_path)
    if collator.encoder_decoder:
        pytest.skip("the specials of T5 are words of its unigram model")
    text = "</s> <|im_end|> <|eot_id|> [PAD] <pad>"
    marked, plain = (collator.training(rows([(each, each)]), [PIXELS]).input_ids[0] for each in (text, "blue"))
    for special in set(collator.llm_tokenizer.all_special_ids):  # type: ignore[attr-defined]
        assert (marked == special).sum() == (plain == special).sum()


def test_raw_is_a_format_of_every_language_model(tmp_path: Path) -> None:
    collator = published("qwen3_8b", tmp_path, prompt_format=PromptFormat.raw, response_prefix=" ")
    batch = collator.training(rows([("Short answer:", "red")]), [PIXELS])
    assert batch.query_position is None
    assert decoded(collator, batch.input_ids[0].tolist()) == "Short answer: red<|im_end|>"


@pytest.mark.parametrize("template", [None, "<|im_start|>user\n"])
def test_a_chat_needs_a_place_for_the_prompt(template: str | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.llm\.chat_template=.* has no slot {prompt}"):
        published("qwen3_8b", tmp_path, chat_template=template).prompts(["a"], [PIXELS], [0])


def test_a_long_prompt_is_cut_for_the_qformer_alone_and_counted() -> None:
    collator = make("tiny_llama")
    collator.qformer.max_length = 8
    long = "is it " * 20 + "a star ?"
    batch = collator.prompts([long, "a star?"], [PIXELS], [0, 0])
    tokenizer: Any = collator.qformer_tokenizer
    assert batch.qformer_input_ids[0].tolist() == tokenizer(long, truncation=True, max_length=8)["input_ids"]
    assert batch.attention_mask[0].sum() > 40 and batch.truncated == (True, False)
    collator.qformer.max_length = 128
    assert collator.prompts([long], [PIXELS], [0]).truncated == (False,)
    limited = collator.prompts([long, "a star?"], [PIXELS], [0, 0], limit=7)
    assert limited.truncated == (True, False) and limited.attention_mask[0].sum() == 7


def test_what_cannot_be_asked_is_refused() -> None:
    collator = make("tiny_llama")
    with pytest.raises(ValueError, match=r"candidates \[0, 2\] of 3 are empty"):
        collator.candidate_ids(["", "red", "\n"])
    with pytest.raises(ValueError, match="a limit of 1 tokens leaves 0 for the prompt itself"):
        collator.prompts(["a"], [PIXELS], [0], limit=1)


def test_pictures_and_clips_do_not_mix() -> None:
    clip, collator = torch.stack([PIXELS] * 4), make("tiny_llama")
    two = [replace(row, image=place) for place, row in enumerate(rows(TEXTS[:2]))]
    assert collator.training(two, [clip, clip]).pixel_values.shape == (2, 4, 3, 8, 8)
    with pytest.raises(ValueError, match="media of 1 and 4 frames"):
        collator.training(two, [clip, PIXELS])


CONTEXT = "A red circle."


def several() -> Example:
    """Two questions about one context."""
    (instruction, response), other = TEXTS[:2]
    return Example(instruction, response, "r", "r/s/0", "t", CONTEXT, (other,))


def test_a_causal_model_reads_every_turn_apart() -> None:
    collator = make("tiny_llama")
    tokenizer: Any = collator.llm_tokenizer
    batch = collator.training([Row(several(), 0), *rows(TEXTS[1:2])], [PIXELS])
    assert batch.labels is not None and batch.turn is not None
    context, *asked = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (CONTEXT, TEXTS[0][0], TEXTS[1][0])
    )
    said = collator.response_ids([TEXTS[0][1], TEXTS[1][1]])
    parts = [[tokenizer.bos_token_id, *context], asked[0] + said[0], asked[1] + said[1]]
    real = batch.attention_mask[0] == 1
    assert batch.input_ids[0][real].tolist() == [id for part in parts for id in part]
    assert batch.turn[0][real].tolist() == [turn for turn, part in enumerate(parts) for _ in part]
    assert batch.labels[0][batch.labels[0] != IGNORE].tolist() == said[0] + said[1]
    assert batch.turn[1].unique().tolist() == [0, 1]
    assert batch.tokens[0] == (len(parts[0]) + len(asked[0]) + len(asked[1]), len(said[0]) + len(said[1]))
    assert collator.training(rows(TEXTS[:2]), [PIXELS]).turn is None


def test_an_encoder_decoder_reads_each_turn_as_a_row() -> None:
    collator = make("miniature_t5")
    tokenizer: Any = collator.llm_tokenizer
    batch = collator.training([Row(several(), 0, group=2, place=5), *rows(TEXTS[2:3])], [PIXELS])
    alone = [(f"{CONTEXT} {TEXTS[0][0]}", TEXTS[0][1]), (f"{CONTEXT} {TEXTS[1][0]}", TEXTS[1][1]), TEXTS[2]]
    expected = collator.training(rows(alone), [PIXELS])
    assert batch.labels is not None and expected.labels is not None and batch.turn is None
    assert torch.equal(batch.input_ids, expected.input_ids) and torch.equal(batch.labels, expected.labels)
    assert tokenizer.decode(batch.input_ids[1], skip_special_tokens=True).strip() == alone[1][0]
    assert torch.equal(batch.qformer_input_ids, expected.qformer_input_ids)
    assert (batch.group.tolist(), batch.place.tolist()) == ([2, 2, 0], [5, 5, 0])
    assert batch.image_index.tolist() == [0, 0, 0]
