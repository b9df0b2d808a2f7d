"""Where the weights of a model come from: files and folders, read under our names (`rename.py`).

Nothing is copied while reading: tensors lie in the file until a model takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from instructblip.config.model import ModelConfig
from instructblip.files import read_json
from instructblip.models.lavis import read_lavis
from instructblip.models.paths import BACKBONES, init_paths
from instructblip.models.pretrained import check_fit, fingerprint
from instructblip.models.qformer import TEXT_BRANCH
from instructblip.models.rename import STAGE1_HEADS, renamed

HUGGING_FACE = {"instructblip": "instructblip", "instructblipvideo": "instructblip", "blip-2": "blip-2"}  # to a column
VOCABULARY = ("embed_tokens.weight", "shared.weight", "lm_head.weight")  # one row per token
BASE = "base"  # key of the fingerprint in a file's metadata


@dataclass(frozen=True)
class Weights:
    """Tensors by our names, and for each the file it lies in."""

    tensors: dict[str, Tensor]
    sources: dict[str, str]
    base: str | None = None  # fingerprint of the frozen base they were trained on, where that is known
    frozen: tuple[str, ...] = ()  # the parts of that base
    stage1: bool = False  # of BLIP-2's first stage alone, which has no projection into a language model
    placeholder: int | None = None  # id of <image>: rows of the vocabulary from here on are no words

    def of(self, part: str) -> dict[str, Tensor]:
        """The tensors of a backbone, under its own names."""
        prefix = BACKBONES[part]
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    def between(self) -> dict[str, Tensor]:
        """What lies between the backbones."""
        return {n: t for n, t in self.tensors.items() if not n.startswith(tuple(BACKBONES.values()))}


def read_init(config: ModelConfig) -> Weights:
    """What `config.init` names, cut to the model: one file or folder, or BLIP-2's [stage 1, stage 2].

    Of a pair, the text branch is read from stage 1 and everything else from stage 2 (PAPER C.3); a backbone that has no
    path of its own and is not in stage 2 from stage 1 too. Of stage 1 alone all but its heads, with which the second
    stage begins. A model that is not instruction-aware passes over the text branch.

    Raises:
        ValueError: a file of no known kind, tensors that have no place, or words the model has no rows for.
    """
    paths = init_paths(config)
    if len(paths) > 2:
        raise ValueError(f"model.init names {len(paths)} files; give one, or [stage 1, stage 2] of BLIP-2")
    weights = read(paths[0]) if len(paths) == 1 else _two_stages(config, *paths) if paths else Weights({}, {})
    if heads := [name for name in weights.tensors if STAGE1_HEADS.fullmatch(name)]:
        weights = replace(_kept(weights, [name for name in weights.tensors if name not in heads]), stage1=True)
    if not config.qformer.instruction_aware:
        weights = _kept(weights, [name for name in weights.tensors if not is_text(name)])
    return _without_placeholder(weights, config.llm.config.get("vocab_size"))


def read(path: str) -> Weights:
    """The tensors of a `transformers` folder (InstructBLIP, InstructBlipVideo, BLIP-2), of a LAVIS file (.pth), or of
    our own (.safetensors), under our names."""
    if Path(path).is_dir():
        return _read_folder(Path(path))
    if path.endswith((".pth", ".pt")):
        tensors = read_lavis(path)
        return Weights(tensors, dict.fromkeys(tensors, path))
    if path.endswith(".safetensors"):
        with _opened(Path(path)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = Weights(tensors, dict.fromkeys(tensors, path), (file.metadata() or {}).get(BASE))
        parts = ["vision"] if any(map(STAGE1_HEADS.fullmatch, tensors)) else BACKBONES
        return replace(found, frozen=tuple(part for part in parts if not found.of(part)))
    raise ValueError(f"{path} is neither a folder nor a .pth or .safetensors file")


def take_between(model: nn.Module, weights: Weights, where: str) -> None:
    """Copies the tensors that lie between the backbones into the model, whose float32 they take: they are trained.

    Raises:
        ValueError: listing tensors that are missing, not expected or of another shape, or naming both frozen bases
            when the weights were trained on another one.
    """
    if weights.base is not None and weights.base != (base := fingerprint(model, weights.frozen)):
        raise ValueError(f"{where} was trained on the frozen base {weights.base}, this model has the base {base}")
    tensors = weights.between()
    backbones = tuple(f"{part}." for part in BACKBONES)
    unread = (*backbones, "language_projection.") if weights.stage1 else backbones
    check_fit(model, tensors, where, unused=tuple(name for name in model.state_dict() if name.startswith(unread)))
    model.load_state_dict(tensors, strict=False)


def with_queries(weights: Weights, drawn: Tensor) -> Weights:
    """The weights with as many queries as the model has, whose own are `drawn` (1, Q, D).

    The first of the weights' are kept; where they are fewer, drawn ones follow. Raises ValueError when they have none.
    """
    if (learnt := weights.tensors.get("query_tokens")) is None:
        raise ValueError("model.init holds no query_tokens; set model.resize_queries=false")
    more = drawn.detach()[:, learnt.size(1) :].to(learnt.dtype)  # (1, those that lack, D)
    fitted = torch.cat((learnt[:, : drawn.size(1)], more), dim=1)  # (1, Q, D)
    return replace(weights, tensors=weights.tensors | {"query_tokens": fitted})


def is_text(name: str) -> bool:
    """Whether a tensor belongs to the Q-Former's text branch."""
    return name.startswith("qformer.") and any(part in name for part in TEXT_BRANCH)


def tensors_of(folder: Path) -> Iterator[tuple[str, Path, Tensor]]:
    """Name, file and tensor of a folder's single or sharded safetensors."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [single.name]
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise ValueError(f"{folder} lacks {', '.join(absent)}; weights are read from safetensors only")
    for name in files:
        with _opened(folder / name) as file:
            for key in file.keys():  # noqa: SIM118
                yield key, folder / name, file.get_tensor(key)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); copy it again") from error


def _read_folder(folder: Path) -> Weights:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json; it is no folder of transformers")
    config = read_json(folder / "config.json")
    if config.get("model_type") not in HUGGING_FACE:
        raise ValueError(f"{folder} holds a model of type {config.get('model_type')!r}, not {', '.join(HUGGING_FACE)}")
    column = HUGGING_FACE[config["model_type"]]
    found = list(tensors_of(folder))
    tensors = renamed({name: t for name, _, t in found}, column, "ours", str(folder))
    sources = {name: str(folder) for name in tensors}
    return Weights(tensors, sources, placeholder=config.get("image_token_index", config.get("video_token_index")))


def _two_stages(config: ModelConfig, stage1: str, stage2: str) -> Weights:
    first, second = read(stage1), read(stage2)
    if not any(map(is_text, first.tensors)):
        raise ValueError(f"{stage1} has no text branch; give BLIP-2's first stage first: [stage 1, stage 2]")
    lacking = [part for part in BACKBONES if not second.of(part) and getattr(config, part).weights is None]
    backbones = tuple(BACKBONES[part] for part in lacking)
    early = _kept(first, [n for n in first.tensors if is_text(n) or (backbones and n.startswith(backbones))])
    late = _kept(second, [name for name in second.tensors if not is_text(name)])
    return replace(late, tensors=early.tensors | late.tensors, sources=early.sources | late.sources)


def _kept(weights: Weights, names: list[str]) -> Weights:
    tensors, sources = weights.tensors, weights.sources
    return replace(weights, tensors={n: tensors[n] for n in names}, sources={n: sources[n] for n in names})


def _without_placeholder(weights: Weights, words: int | None) -> Weights:
    """Cuts the rows of <image> and of the padding behind it, which our vocabulary does not have."""
    first = weights.placeholder
    if first is None or words is None or first > words:
        return weights
    cut = {
        name: tensor[:words]
        for name, tensor in weights.of("llm").items()
        if name.endswith(VOCABULARY) and len(tensor) > words
    }
    prefix = BACKBONES["llm"]
    return replace(weights, tensors=weights.tensors | {prefix + name: tensor for name, tensor in cut.items()})
