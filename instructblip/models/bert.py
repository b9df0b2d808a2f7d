"""The Q-Former's beginning: BERT, before it has seen a picture (LAVIS `blip2.py` init_Qformer, `blip2_qformer.py`)."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from instructblip.models.pretrained import check_fit
from instructblip.models.rename import renamed
from instructblip.models.weights import tensors_of

# Segments, the pooled output and next-sentence prediction, which the Q-Former lacks; the output matrix is tied.
UNUSED = re.compile(
    r"bert\.(embeddings\.(token_type_embeddings\.weight|position_ids)|pooler\..+)"
    r"|cls\.(seq_relationship|predictions\.decoder)\..+"
)
DRAWN = ("vision.", "ln_vision.", "query_tokens", "vision_projection.", "text_projection.", "itm_head.", "temperature")


@torch.no_grad()
def take_bert(model: nn.Module, folder: str) -> None:
    """Copies BERT's embeddings, layers and language modelling head into a first-stage model.

    The queries' feed-forwards begin as the words'. Cross-attention and the embedding of [DEC], which BERT does not
    have, stay as drawn; its bias is 0.

    Raises:
        ValueError: the folder lacks a tensor, holds one that has no place, or is of another size.
    """
    found = {_modern(name): tensor for name, _, tensor in tensors_of(Path(folder)) if not UNUSED.fullmatch(name)}
    tensors = renamed({f"Qformer.{name}": tensor for name, tensor in found.items()}, "lavis", "ours", folder)
    own = model.state_dict()
    for name in ("qformer.word_embeddings.weight", "lm_head.bias"):
        if name in tensors:
            tensors[name] = _with_dec(tensors[name], own[name], zero=name == "lm_head.bias")
    copies = {name.replace("text_ffn", "query_ffn"): t for name, t in tensors.items() if "text_ffn" in name}
    crossing = tuple(name for name in own if ".cross_attention." in name or name.startswith(DRAWN))
    check_fit(model, tensors | copies, folder, crossing)
    model.load_state_dict(tensors | copies, strict=False)


def _modern(name: str) -> str:
    """Names of 2018 as LAVIS has them."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name.replace("cls.predictions.bias", "cls.predictions.decoder.bias")


def _with_dec(tensor: Tensor, own: Tensor, zero: bool) -> Tensor:
    """One row more, of the model itself or zero."""
    last = torch.zeros_like(own[-1:]) if zero else own[-1:]
    return torch.cat((tensor, last)) if len(tensor) == len(own) - 1 else tensor
