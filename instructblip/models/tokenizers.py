"""The two tokenizers of a model: the language model's and the Q-Former's (BERT's WordPiece)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerFast

from instructblip.config.model import LLMConfig, ModelConfig, QFormerConfig

PLACEHOLDERS = ("<image>", "<video>")  # which transformers 5 adds for its own use; the model has no rows for them
BERT_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@dataclass(frozen=True)
class Tokenizers:
    """Both cut from the left (LAVIS), so that the end of a long prompt, where the question stands, survives.

    `llm` is called with add_special_tokens=False: what its file would add is set aside, BOS and EOS are the
    collator's, after the config. `qformer` adds [CLS] and [SEP] itself.
    """

    llm: PreTrainedTokenizerFast
    qformer: PreTrainedTokenizerFast


def tokenizers(config: ModelConfig) -> Tokenizers:
    """Reads both; each is a tokenizer.json or a folder that holds one.

    Raises:
        ValueError: files that are not there (all in one message), or special tokens the model does not know.
    """
    paths = {"model.llm.tokenizer": config.llm.tokenizer, "model.qformer.tokenizer": config.qformer.tokenizer}
    files = {name: _file(path) for name, path in paths.items()}
    if absent := [f"{name}={file}" for name, file in files.items() if not file.is_file()]:
        raise ValueError(f"tokenizers not found: {', '.join(absent)}")
    llm = PreTrainedTokenizerFast(tokenizer_file=str(files["model.llm.tokenizer"]), truncation_side="left")
    llm.add_special_tokens(_special_tokens(config.llm, llm.get_vocab()))
    qformer = _bert(files["model.qformer.tokenizer"], config.qformer)
    _check_ids(config, Tokenizers(llm, qformer))
    return Tokenizers(llm, qformer)


def caption_tokenizer(config: QFormerConfig) -> PreTrainedTokenizerFast:
    """The Q-Former's alone, for BLIP-2's first stage, whose [DEC] is the vocabulary's last row.

    Raises:
        ValueError: a file that is not there, or a vocabulary without a row to spare.
    """
    path = _file(config.tokenizer)
    if not path.is_file():
        raise ValueError(f"tokenizers not found: model.qformer.tokenizer={path}")
    tokenizer = _bert(path, config)
    if len(tokenizer.get_vocab()) >= config.vocab_size:
        raise ValueError(
            f"the qformer tokenizer has {len(tokenizer.get_vocab())} tokens and model.qformer.vocab_size="
            f"{config.vocab_size} leaves no row for [DEC]; make it one more than the tokenizer's"
        )
    return tokenizer


def _file(path: str) -> Path:
    return Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)


def _bert(path: Path, config: QFormerConfig) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), truncation_side="left", model_max_length=config.max_length, **BERT_SPECIALS
    )


def _special_tokens(config: LLMConfig, vocabulary: dict[str, int]) -> dict[str, Any]:
    """What each special token is. Only the pad token may be new: it is never read, the others have to be learnt."""
    learnt = {"bos_token": config.bos_token, "eos_token": config.eos_token, "unk_token": config.unk_token}
    given = {name: token for name, token in learnt.items() if token is not None}
    if unknown := [f"model.llm.{name}={token!r}" for name, token in given.items() if token not in vocabulary]:
        raise ValueError(f"{', '.join(unknown)}: not among the {len(vocabulary)} tokens of {config.tokenizer}")
    return given | {"pad_token": config.pad_token}


def _check_ids(config: ModelConfig, both: Tokenizers) -> None:
    """Model and tokenizer must mean the same by an id, and no id may lie outside the embedding."""
    for name in ("eos_token_id", "pad_token_id"):
        stated, actual = config.llm.config.get(name), getattr(both.llm, name)
        if stated != actual:
            raise ValueError(f"model.llm.config.{name} is {stated}, the tokenizer's is {actual}; set it to that")
    sizes = {"llm": config.llm.config.get("vocab_size"), "qformer": config.qformer.vocab_size}
    for part, size in sizes.items():
        words = [token for token in getattr(both, part).get_vocab() if token not in PLACEHOLDERS]
        if size is not None and len(words) > size:
            raise ValueError(f"the {part} tokenizer has {len(words)} tokens, model.{part} a vocabulary of {size}")


def is_encoder_decoder(config: LLMConfig) -> bool:
    """Whether the language model reads the prompt apart from what it writes; no weights are loaded."""
    return bool(AutoConfig.for_model(config.type, **config.config).is_encoder_decoder)
