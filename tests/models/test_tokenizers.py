"""Both tokenizers from files: special tokens, truncation, and disagreements with the config."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from instructblip.config.model import ModelConfig
from instructblip.models.tokenizers import tokenizers

from .conftest import tiny_config

WORDS = ["what", "colour", "is", "it"]


@pytest.fixture
def config(tmp_path: Path) -> ModelConfig:
    """Word-level stand-ins: the llm's as a file, the Q-Former's in a folder."""
    llm = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<s>", "</s>", *WORDS])}, unk_token="</s>"))
    bert = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}))
    bert.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    for tokenizer in (llm, bert):
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "bert").mkdir()
    llm.save(str(tmp_path / "llm.json"))
    bert.save(str(tmp_path / "bert" / "tokenizer.json"))
    tiny = tiny_config(tokenizer=str(tmp_path / "bert"), max_length=4)
    return replace(tiny, llm=replace(tiny.llm, tokenizer=str(tmp_path / "llm.json"), bos_token="<s>"))


def test_special_ids_and_truncation_from_the_left(config: ModelConfig) -> None:
    both = tokenizers(config)
    assert (both.llm.pad_token_id, both.llm.bos_token_id, both.llm.eos_token_id) == (0, 1, 2)
    assert both.llm("what is it", add_special_tokens=False).input_ids == [3, 5, 6]
    assert both.llm("what is it", add_special_tokens=False, truncation=True, max_length=2).input_ids == [5, 6]
    assert both.qformer("what colour is it", truncation=True).input_ids == [2, 6, 7, 3]
    assert both.qformer(["is it", "it"], padding=True).attention_mask == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_a_pad_token_of_its_own_comes_after_the_vocabulary(config: ModelConfig) -> None:
    """Vicuna's: [PAD] is not in the file and becomes the row after the last."""
    ids = config.llm.config | {"pad_token_id": 7}
    vicuna = replace(config, llm=replace(config.llm, bos_token="</s>", pad_token="[PAD]", config=ids))
    llm = tokenizers(vicuna).llm
    assert (llm.bos_token_id, llm.eos_token_id, llm.pad_token_id) == (2, 2, 7)


def test_disagreement_with_the_models_config(config: ModelConfig) -> None:
    for change, message in [
        ({"eos_token_id": 1}, "model.llm.config.eos_token_id is 1, the tokenizer's is 2"),
        ({"vocab_size": 6}, "the llm tokenizer has 7 tokens, model.llm a vocabulary of 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            tokenizers(replace(config, llm=replace(config.llm, config=config.llm.config | change)))


def test_a_placeholder_of_transformers_is_no_word(config: ModelConfig, tmp_path: Path) -> None:
    """The released folders hold `<image>` as one token more than the model has rows."""
    made = json.loads(Path(config.llm.tokenizer).read_text())
    last = 7
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"].append({"id": last, "content": "<image>", **flags})
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    given = replace(
        config.llm, tokenizer=str(tmp_path / "tokenizer.json"), config=config.llm.config | {"vocab_size": last}
    )
    assert len(tokenizers(replace(config, llm=given)).llm) == last + 1


def test_every_missing_file_is_named(config: ModelConfig) -> None:
    gone = replace(config, llm=replace(config.llm, tokenizer="no.json"), qformer=replace(config.qformer, tokenizer="x"))
    with pytest.raises(ValueError, match=r"llm.tokenizer=no.json, model.qformer.tokenizer=x"):
        tokenizers(gone)


def test_files_hold_what_the_tests_assume(config: ModelConfig) -> None:
    assert len(json.loads(Path(config.llm.tokenizer).read_text())["model"]["vocab"]) == 7


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "unk_token"])
def test_only_the_pad_token_may_be_new(config: ModelConfig, name: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.llm\.{name}='<bos>': not among the 7 tokens"):
        tokenizers(replace(config, llm=replace(config.llm, **{name: "<bos>"})))
