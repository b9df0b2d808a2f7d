"""Files of the official code (PAPER H): a pickled dict of tensors, read without running anything it may hold.

LAVIS keeps the pieces apart: one file holds what lies between the backbones, one the EVA ViT-g/14, and a folder of
`transformers` the language model. Its attention has no bias for keys: it stores those of queries and values.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from instructblip.models.rename import renamed
from instructblip.names import require

EVA_TYPE = "instructblip_vision_model"
MODEL = "model"  # the key of the dict in a checkpoint; the ViT's file has none
VISION = "visual_encoder."
BETWEEN_FILE, VISION_FILE, LLM_FOLDER = "instruct_blip_trimmed.pth", "eva_vit_g.pth", "llm"
LLM_WORDS = {"t5": "t5", "opt": "opt"}  # what LAVIS calls a language model, where it is not llm


def read_lavis(path: str) -> dict[str, Tensor]:
    """A checkpoint's tensors (`*_trimmed.pth`, BLIP-2's stages) under our names.

    Raises:
        ValueError: not a checkpoint, holds more than tensors, or names that have no place.
    """
    return renamed(_fused(_unpickled(path)), "lavis", "ours", path)


def read_eva(path: str, depth: int) -> dict[str, Tensor]:
    """The tensors of `eva_vit_g.pth` under the names of `transformers`' encoder of `depth` layers.

    The file's last block, its norm and its head are passed over, as LAVIS does (PAPER A.2).
    """
    unused = re.compile(rf"visual_encoder\.(blocks\.{depth}\..+|(norm|fc_norm|head)\.(weight|bias))")
    tensors = {VISION + name.removeprefix(VISION): tensor for name, tensor in _unpickled(path).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not unused.fullmatch(name)}
    ours = renamed(_fused(tensors), "lavis", "ours", path)
    return {name.removeprefix("vision.encoder."): tensor for name, tensor in ours.items()}


def to_lavis(tensors: dict[str, Tensor], llm_type: str) -> dict[str, Tensor]:
    """Tensors of ours under LAVIS' names. Raises ValueError for a key bias, which LAVIS cannot hold."""
    return _split(renamed(tensors, "ours", "lavis", "the model", llm=LLM_WORDS.get(llm_type, "llm")))


def write_lavis(tensors: dict[str, Tensor], vision_type: str, llm_type: str, folder: Path) -> None:
    """Writes what lies between the backbones and, beside it, the ViT; the language model LAVIS reads as a folder.

    Raises:
        ValueError: another vision encoder than EVA's, or a bias for keys.
    """
    require(vision_type, [EVA_TYPE], "vision type of LAVIS")
    theirs = to_lavis({name: t for name, t in tensors.items() if not name.startswith("llm.")}, llm_type)
    eva = {name.removeprefix(VISION): tensor for name, tensor in theirs.items() if name.startswith(VISION)}
    between = {name: tensor for name, tensor in theirs.items() if not name.startswith(VISION)}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({MODEL: between}, folder / BETWEEN_FILE)
    torch.save(eva, folder / VISION_FILE)


def _unpickled(path: str) -> dict[str, Tensor]:
    try:  # mapped into memory where the format allows it, so that reading makes no copy
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is refused: it is no file of tensors, or it would run code ({error})") from error
    tensors = content.get(MODEL, content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} holds no dict of tensors, neither itself nor under {MODEL!r}")
    return tensors


def _fused(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The biases of queries and values as one of queries, keys (zero) and values."""
    fused = dict(tensors)
    for name in [name for name in tensors if name.endswith(".q_bias")]:
        stem = name.removesuffix("q_bias")
        if (other := f"{stem}v_bias") not in tensors:
            raise ValueError(f"{name} comes without {other}")
        query, value = fused.pop(name), fused.pop(other)
        fused[f"{stem}qkv.bias"] = torch.cat((query, torch.zeros_like(query), value))
    return fused


def _split(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    split = dict(tensors)
    for name in [name for name in tensors if name.endswith(".qkv.bias")]:
        query, key, value = split.pop(name).chunk(3)
        if key.any():
            raise ValueError(f"{name}: LAVIS has no bias for keys, and this one's norm is {key.norm():.3g}")
        stem = name.removesuffix("qkv.bias")
        split |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
    return split
