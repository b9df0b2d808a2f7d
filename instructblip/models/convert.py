"""Checkpoints from one format to another, read back and compared.

    python -m instructblip.models.checkpoint SRC DST --format hf|lavis|trainable [--config YAML] [model.x=y ...]

SRC is a folder of `transformers`, a run's folder or checkpoint file, or, with `--config`, a LAVIS file (.pth) or one of
ours (.safetensors); the config (a run's config.yaml, or any YAML with `model:`) then says where the vision encoder and
the language model lie. DST is a folder, or a .safetensors file for `trainable`.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from instructblip.config.model import ModelConfig
from instructblip.models import huggingface, lavis
from instructblip.models.checkpoint import load_trained, write_trainable
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.lora import merge_adapters
from instructblip.models.paths import BACKBONES
from instructblip.models.tokenizers import tokenizers
from instructblip.models.weights import read, read_init, tensors_of

FORMATS = ("hf", "lavis", "trainable")


@dataclass(frozen=True)
class Source:
    """What is converted: the config of a model, and the trained weights that are laid over it."""

    config: ModelConfig
    trained: Path | None = None
    seed: int = 0  # of a run, for what its base drew

    def model(self) -> InstructBlip:
        model = build(self.config, self.seed)
        if self.trained is not None:
            load_trained(model, self.trained)
        return model

    @property
    def origins(self) -> dict[str, str]:
        """For each tensor that was read from a file its path, by prefixes for those of backbones with their own."""
        paths = {f"{part}.": getattr(self.config, part).weights or "drawn" for part in BACKBONES}
        origins = paths | (read_init(self.config).sources if self.config.init is not None else {})
        return origins | (dict.fromkeys(read(str(self.trained)).tensors, str(self.trained)) if self.trained else {})


@dataclass(frozen=True)
class Row:
    """One module of the report."""

    module: str
    tensors: int
    parameters: int
    norm: float
    difference: float | None  # largest, after reading back; None when the format does not hold the module
    origin: str


def main() -> None:
    """The command. Errors are one line on standard error and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("overrides", nargs="*", help="model.vision.weights=... and the like, over the config")
    given = parser.parse_intermixed_args()
    try:
        rows = convert(open_source(given.source, given.config, given.overrides), given.target, given.format)
    except (ValueError, OmegaConfBaseException) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    show(rows)


def open_source(path: Path, config: Path | None = None, overrides: list[str] | None = None) -> Source:
    """What `path` is. Raises ValueError when nothing says how the model is built."""
    if (path / "config.json").is_file():
        return Source(huggingface.model_config(path))
    if path.is_dir():
        found = sorted(path.glob("checkpoints/step-*/model.safetensors"))
        if not found:
            raise ValueError(f"{path} is neither a folder of transformers nor a run with a checkpoint")
        path = found[-1]
    if not path.is_file():
        raise ValueError(f"{path} is not there")
    of_run = next((folder / "config.yaml" for folder in path.parents[:3] if (folder / "config.yaml").is_file()), None)
    if (chosen := config or of_run) is None:
        raise ValueError(f"{path} does not say how its model is built; give --config, a YAML with model:")
    model = _model_config(chosen, overrides or [])
    if chosen is of_run:
        return Source(model, trained=path, seed=int(OmegaConf.select(OmegaConf.load(chosen), "seed", default=0)))
    model.init = str(path)
    return Source(model)


def convert(source: Source, target: Path, form: str) -> list[Row]:
    """Writes the source's model in another format, reads it back, and reports module by module.

    Adapters are merged into their linear maps, except in our own format, which keeps them.

    Raises:
        ValueError: weights that do not fit, that the format cannot hold, or a target that is there already.
    """
    if target.exists():
        raise ValueError(f"{target} is there already; choose another name")
    model = source.model()
    if form != "trainable":
        merge_adapters(model)
    if form == "hf":
        huggingface.write_folder(model, source.config, tokenizers(source.config), target)
    elif form == "lavis":
        lavis.write_lavis(model.state_dict(), source.config.vision.type, source.config.llm.type, target)
        model.llm.model.save_pretrained(target / lavis.LLM_FOLDER)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_trainable(model, target)
    return list(_compared(model, source, _read_back(model, source.config, target, form)))


def show(rows: list[Row]) -> None:
    """Prints the report."""
    table = Table()
    for name in ("module", "tensors", "parameters", "norm", "max difference", "read from"):
        table.add_column(name, overflow="fold")
    for row in rows:
        difference = "not in this format" if row.difference is None else f"{row.difference:.1e}"
        cells = (row.module, str(row.tensors), f"{row.parameters:,}", f"{row.norm:.6g}", difference, row.origin)
        table.add_row(*cells)
    Console().print(table)


def _model_config(path: Path, overrides: list[str]) -> ModelConfig:
    loaded = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(overrides))
    if "model" not in loaded:
        raise ValueError(f"{path} has no model: in it")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), loaded.model))
    assert isinstance(config, ModelConfig)
    return config


def _read_back(model: InstructBlip, config: ModelConfig, target: Path, form: str) -> dict[str, Tensor]:
    """What was written, by our names."""
    if form == "trainable":
        return read(str(target)).tensors
    if form == "hf":
        config = copy.deepcopy(config)
        config.init = str(target)
        config.llm.config["vocab_size"] = model.llm.model.get_input_embeddings().num_embeddings
        return read_init(config).tensors
    depth = model.vision.encoder.config.num_hidden_layers
    vision = lavis.read_eva(str(target / lavis.VISION_FILE), depth)
    llm = {name: tensor for name, _, tensor in tensors_of(target / lavis.LLM_FOLDER)}
    backbones = {BACKBONES["vision"] + name: tensor for name, tensor in vision.items()}
    backbones |= {BACKBONES["llm"] + name: tensor for name, tensor in llm.items()}
    return lavis.read_lavis(str(target / lavis.BETWEEN_FILE)) | backbones


def _compared(model: InstructBlip, source: Source, back: dict[str, Tensor]) -> Iterator[Row]:
    modules: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        modules.setdefault(_module(name), {})[name] = parameter.detach()
    origins = source.origins
    for module, tensors in track(modules.items(), description="comparing", console=Console(stderr=True)):
        pairs = [(tensor, back[name]) for name, tensor in tensors.items() if name in back]
        yield Row(
            module,
            len(tensors),
            sum(tensor.numel() for tensor in tensors.values()),
            sum(float(tensor.float().norm()) ** 2 for tensor in tensors.values()) ** 0.5,
            max((float((a.float() - b.float()).abs().max()) for a, b in pairs), default=None)
            if len(pairs) == len(tensors)
            else None,
            ", ".join(sorted({_origin(name, origins) for name in tensors})),
        )


def _module(name: str) -> str:
    """The row a tensor belongs to: a Q-Former layer, or the part of the model."""
    layer = re.match(r"qformer\.layers\.\d+", name)
    return layer[0] if layer else name.split(".")[0]


def _origin(name: str, origins: dict[str, str]) -> str:
    return origins.get(name) or origins.get(f"{name.split('.')[0]}.", "drawn")
