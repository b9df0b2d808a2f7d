"""Low-rank adapters (LoRA, arXiv 2106.09685) on linear maps of the language model or the Q-Former, through `peft`.

A part with adapters learns through them alone: what was there before stays as it is, and the adapters can be
merged into it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from instructblip.config.model import LoraConfig
from instructblip.names import require

PARTS = ("llm", "qformer")
ADAPTER, BASE = ".lora_", ".base_layer"  # what peft puts into names


def add_adapters(model: nn.Module, config: LoraConfig) -> None:
    """Puts adapters that change nothing yet on the linear maps `config.targets` names, as `llm.q_proj`.

    Their weights come from the global random state.

    Raises:
        ValueError: `peft` is not installed, or a target that is no linear map of the language model or Q-Former.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("model.lora needs peft: pip install 'instructblip[lora]'") from error
    found: dict[str, list[str]] = {}
    for target in config.targets:
        part, _, name = target.partition(".")
        require(part, PARTS, f"part in model.lora.targets={target}")
        maps = _linear_maps(model, part)
        require(name, sorted({each.rsplit(".", 1)[-1] for each in maps}), f"linear map of {part}")
        found.setdefault(part, []).extend(each for each in maps if f".{each}".endswith(f".{name}"))
    for part, names in found.items():
        settings = peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=names
        )
        peft.inject_adapter_in_model(settings, model.get_submodule(part))


def merge_adapters(model: nn.Module) -> None:
    """Adds what the adapters have learnt to their linear maps and takes them away: no `peft` is needed any more."""
    for name, layer in _adapted(model):
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())


def train_adapters(model: nn.Module, mode: bool) -> None:
    """The adapters' own dropout, which a frozen part in eval mode would switch off."""
    for _, layer in _adapted(model):
        layer.lora_dropout.train(mode)


def is_adapter(name: str) -> bool:
    """Whether the tensor `name` is learnt by an adapter."""
    return ADAPTER in name


def base_name(name: str) -> str:
    """The name a tensor of a backbone has without adapters."""
    return name.replace(BASE, "")


def _linear_maps(model: nn.Module, part: str) -> list[str]:
    """Names within `part`; of the Q-Former not those that nothing reads, which cannot learn."""
    return [
        name
        for name, module in model.get_submodule(part).named_modules()
        if isinstance(module, nn.Linear) and (part == "llm" or module.weight.requires_grad)
    ]


def _adapted(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_dropout")]
