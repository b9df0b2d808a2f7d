"""Where the weights of a model come from: files and folders, read under our names (`rename.py`).

Nothing is copied while reading: tensors lie in the file until a model takes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from instructblip.config.model import ModelConfig
from instructblip.files import read_json
from instructblip.models.lavis import read_lavis
from instructblip.models.paths import BACKBONES, init_paths
from instructblip.models.pretrained import check_fit, fingerprint
from instructblip.models.qformer import TEXT_BRANCH
from instructblip.models.rename import STAGE1_HEADS, STRAY, renamed

HUGGING_FACE = {"instructblip": "instructblip", "instructblipvideo": "instructblip", "blip-2": "blip-2"}  # to a column
VOCABULARY = ("embed_tokens.weight", "shared.weight", "lm_head.weight")  # one row per token
BASE = "base"  # key of the fingerprint in a file's metadata


@dataclass(frozen=True)
class Weights:
    """Tensors by our names, and for each the file it lies in."""

    tensors: dict[str, Tensor]
    sources: dict[str, str]
    base: str | None = None  # fingerprint of the frozen base they were trained on, where that is known
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

    Of a pair, the text branch is read from stage 1 and everything else from stage 2 (PAPER C.3). A model that is not
    instruction-aware passes over the text branch.

    Raises:
        ValueError: a file of no known kind, tensors that have no place, or words the model has no rows for.
    """
    paths = init_paths(config)
    if len(paths) > 2:
        raise ValueError(f"model.init names {len(paths)} files; give one, or [stage 1, stage 2] of BLIP-2")
    weights = read(paths[0]) if len(paths) == 1 else _two_stages(*paths) if paths else Weights({}, {})
    if not config.qformer.instruction_aware:
        weights = _kept(weights, [name for name in weights.tensors if not is_text(name)])
    return _without_placeholder(weights, config.llm.config.get("vocab_size"))


def read(path: str, passed_over: Sequence[re.Pattern[str]] = (STRAY,)) -> Weights:
    """The tensors of a `transformers` folder (InstructBLIP, InstructBlipVideo, BLIP-2), of a LAVIS file (.pth), or of
    our own (.safetensors), under our names."""
    if Path(path).is_dir():
        return _read_folder(Path(path), passed_over)
    if path.endswith((".pth", ".pt")):
        tensors = read_lavis(path, passed_over)
        return Weights(tensors, dict.fromkeys(tensors, path))
    if path.endswith(".safetensors"):
        with _opened(Path(path)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Weights(tensors, dict.fromkeys(tensors, path), (file.metadata() or {}).get(BASE))
    raise ValueError(f"{path} is neither a folder nor a .pth or .safetensors file")


def take_between(model: nn.Module, weights: Weights, where: str) -> None:
    """Copies the tensors that lie between the backbones into the model, whose float32 they take: they are trained.

    Raises:
        ValueError: listing tensors that are missing, not expected or of another shape, or naming both frozen bases
            when the weights were trained on another one.
    """
    parts = [part for part in BACKBONES if not weights.of(part)]
    if weights.base is not None and weights.base != (base := fingerprint(model, parts)):
        raise ValueError(f"{where} was trained on the frozen base {weights.base}, this model has the base {base}")
    tensors = weights.between()
    backbones = tuple(f"{part}." for part in BACKBONES)
    check_fit(model, tensors, where, unused=tuple(name for name in model.state_dict() if name.startswith(backbones)))
    model.load_state_dict(tensors, strict=False)


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


def _read_folder(folder: Path, passed_over: Sequence[re.Pattern[str]]) -> Weights:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json; it is no folder of transformers")
    config = read_json(folder / "config.json")
    if config.get("model_type") not in HUGGING_FACE:
        raise ValueError(f"{folder} holds a model of type {config.get('model_type')!r}, not {', '.join(HUGGING_FACE)}")
    column = HUGGING_FACE[config["model_type"]]
    found = list(tensors_of(folder))
    tensors = renamed({name: t for name, _, t in found}, column, "ours", str(folder), passed_over)
    sources = {name: str(folder) for name in tensors}
    return Weights(tensors, sources, placeholder=config.get("image_token_index", config.get("video_token_index")))


def _two_stages(stage1: str, stage2: str) -> Weights:
    first = read(stage1, (STRAY, STAGE1_HEADS))
    text = _kept(first, [name for name in first.tensors if is_text(name)])
    if not text.tensors:
        raise ValueError(f"{stage1} has no text branch; give BLIP-2's first stage first: [stage 1, stage 2]")
    second = read(stage2)
    rest = _kept(second, [name for name in second.tensors if not is_text(name)])
    return Weights(
        text.tensors | rest.tensors, text.sources | rest.sources, base=second.base, placeholder=second.placeholder
    )


def _kept(weights: Weights, names: list[str]) -> Weights:
    return Weights(
        {name: weights.tensors[name] for name in names},
        {name: weights.sources[name] for name in names},
        weights.base,
        weights.placeholder,
    )


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
    return Weights(
        weights.tensors | {prefix + name: tensor for name, tensor in cut.items()}, weights.sources, weights.base, first
    )
