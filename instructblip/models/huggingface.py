"""Folders of `transformers`: the config of one that is there, and one that its InstructBLIP loads as it is.

`transformers` looks for the queries at placeholder tokens `<image>`, which our models do not have: the token's row is
appended when a folder is written and cut when one is read. An instruction-unaware model becomes its BLIP-2.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerFast,
)

from instructblip.config.model import LLMConfig, ModelConfig, QFormerConfig, VisionConfig
from instructblip.files import read_json
from instructblip.models.instructblip import InstructBlip
from instructblip.models.rename import renamed
from instructblip.models.tokenizers import Tokenizers
from instructblip.models.weights import HUGGING_FACE, VOCABULARY
from instructblip.names import require

VISION_TYPE = "instructblip_vision_model"
NOT_ARCHITECTURE = ("model_type", "transformers_version", "dtype", "image_size", "use_qformer_text_input")
QFORMER_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "cross_attention_frequency",
    "vocab_size",
    "max_position_embeddings",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
)


def model_config(folder: Path) -> ModelConfig:
    """The config of an InstructBLIP, InstructBlipVideo or BLIP-2 folder, whose weights `init` then names.

    `ln_vision_eps` is what `transformers` computes with, 1e-6. Tokens are those of the folder's tokenizer; BOS is set
    where that puts one before a text.

    Raises:
        ValueError: a folder of another model, or without a tokenizer.json.
    """
    require(str(read_json(folder / "config.json").get("model_type")), HUGGING_FACE, f"model type in {folder}")
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder} has no tokenizer.json; save the language model's tokenizer there")
    theirs = AutoConfig.from_pretrained(folder, local_files_only=True)
    qformer, text = theirs.qformer_config, theirs.text_config
    aware = bool(getattr(qformer, "use_qformer_text_input", theirs.model_type != "blip-2"))
    return ModelConfig(
        name=folder.name,
        init=str(folder),
        ln_vision_eps=theirs.vision_config.layer_norm_eps,
        vision=VisionConfig(
            type=VISION_TYPE,
            image_size=theirs.vision_config.image_size,
            config=_architecture(theirs.vision_config),
            **_pixel_statistics(folder),
        ),
        qformer=QFormerConfig(
            instruction_aware=aware,
            num_query_tokens=theirs.num_query_tokens,
            tokenizer=str(folder / "qformer_tokenizer"),
            **{name: getattr(qformer, name) for name in QFORMER_FIELDS},
        ),
        llm=_llm_config(folder, text, getattr(theirs, "image_token_index", getattr(theirs, "video_token_index", None))),
    )


def write_folder(model: InstructBlip, config: ModelConfig, tokenizers: Tokenizers, folder: Path) -> None:
    """Writes weights (in shards), configs, tokenizers and image processor.

    `transformers` has one eps for all norms of the vision encoder, 1e-6: `config.ln_vision_eps` is not in the folder.

    Raises:
        ValueError: a vision encoder that is not InstructBLIP's.
    """
    require(config.vision.type, [VISION_TYPE], "vision type of transformers' InstructBLIP")
    placeholder = len(tokenizers.llm)
    column = "instructblip" if config.qformer.instruction_aware else "blip-2"
    tensors = renamed(model.state_dict(), "ours", column, "the model")
    rows = model.llm.model.get_input_embeddings().num_embeddings
    if placeholder >= rows:
        tensors = {name: _with_row(t) if name.endswith(VOCABULARY) else t for name, t in tensors.items()}
    with torch.device("meta"):
        theirs = _class(config)(_their_config(model, config, placeholder, max(rows, placeholder + 1)))
    theirs.load_state_dict(tensors, strict=True, assign=True)
    theirs.tie_weights()
    theirs.generation_config = GenerationConfig.from_model_config(theirs.config.text_config)
    theirs.save_pretrained(folder)
    _write_processor(config, tokenizers, theirs.config.text_config.is_encoder_decoder, folder)


def _class(config: ModelConfig) -> Any:
    aware = config.qformer.instruction_aware
    return InstructBlipForConditionalGeneration if aware else Blip2ForConditionalGeneration


def _their_config(model: InstructBlip, config: ModelConfig, placeholder: int, rows: int) -> Any:
    text = copy.deepcopy(model.llm.model.config)
    text.vocab_size = rows
    kind = InstructBlipConfig if config.qformer.instruction_aware else Blip2Config
    return kind(
        vision_config=_architecture(model.vision.encoder.config) | {"image_size": config.vision.image_size},
        qformer_config={name: getattr(config.qformer, name) for name in QFORMER_FIELDS},
        text_config=text,
        num_query_tokens=config.qformer.num_query_tokens,
        image_token_index=placeholder,
    )


def _with_row(embedding: Tensor) -> Tensor:
    """One row more, the mean of all: of the logits the new one is the mean, and never the largest."""
    return torch.cat((embedding, embedding.float().mean(dim=0, keepdim=True).to(embedding.dtype)))


def _write_processor(config: ModelConfig, tokenizers: Tokenizers, encoder_decoder: bool, folder: Path) -> None:
    """Tokenizers that put BOS and EOS where our collator does, and the image processor that needs no torchvision.

    The processor pads the Q-Former's text on the side of the language model's: with a causal one, rows of a ragged
    batch then stand at other positions than alone.
    """
    backend = copy.deepcopy(tokenizers.llm.backend_tokenizer)
    before, after = (None, config.llm.eos_token) if encoder_decoder else (config.llm.bos_token, None)
    pieces = [piece for piece in (before, "$A", after) if piece is not None]
    special = [(piece, backend.token_to_id(piece)) for piece in pieces if piece != "$A"]
    backend.post_processor = TemplateProcessing(single=pieces, special_tokens=special)
    llm = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=config.llm.bos_token,
        eos_token=config.llm.eos_token,
        pad_token=config.llm.pad_token,
        padding_side="right" if encoder_decoder else "left",
        truncation_side="left",
    )
    size = {"height": config.vision.image_size, "width": config.vision.image_size}
    images = BlipImageProcessorPil(size=size, image_mean=config.vision.mean, image_std=config.vision.std)
    queries = config.qformer.num_query_tokens
    if config.qformer.instruction_aware:
        processor: Any = InstructBlipProcessor(images, copy.deepcopy(llm), tokenizers.qformer, queries)
    else:
        processor = Blip2Processor(images, copy.deepcopy(llm), queries)
    processor.save_pretrained(folder)
    llm.save_pretrained(folder)  # without <image>, which the processor adds by itself


def _llm_config(folder: Path, text: Any, placeholder: int | None) -> LLMConfig:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    rows = text.vocab_size
    words = rows - 1 if placeholder == rows - 1 else rows
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "vocab_size": words}
    starts = tokenizer("a").input_ids[0] == tokenizer.bos_token_id and not text.is_encoder_decoder
    return LLMConfig(
        type=text.model_type,
        tokenizer=str(folder),
        bos_token=tokenizer.bos_token if starts else None,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        config=_architecture(text) | ids,
    )


def _architecture(theirs: Any) -> dict[str, Any]:
    return {name: value for name, value in theirs.to_diff_dict().items() if name not in NOT_ARCHITECTURE}


def _pixel_statistics(folder: Path) -> dict[str, Any]:
    """Mean and std of the folder's image processor, where it has one."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            found = found.get("image_processor", found)
            if "image_mean" in found:
                return {"mean": found["image_mean"], "std": found["image_std"]}
    return {}
