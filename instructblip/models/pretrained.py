"""A backbone with weights from this machine; nothing is ever downloaded, and nothing is drawn by accident."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from instructblip.models.lora import base_name, is_adapter

SAMPLED = 256  # values hashed of each frozen tensor: enough to tell two releases of an LLM apart


def from_folder(model_class: Any, folder: str, options: dict[str, Any]) -> Any:
    """A `transformers` model (class or auto class) from its own folder, with `options` set over its config.

    Raises:
        ValueError: the folder lacks tensors of the model, which would otherwise be drawn at random.
    """
    model, report = model_class.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
    )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} tensors of {type(model).__name__}: {', '.join(missing[:5])}")
    return model


def from_tensors(
    model_class: Any,
    config: Any,
    tensors: dict[str, Tensor],
    where: str,
    unused: tuple[str, ...] = (),
    dtype: torch.dtype | str = "auto",
) -> Any:
    """A `transformers` model that takes these tensors as its own, without a copy unless their dtype changes.

    Args:
        config: of `model_class`.
        tensors: by the model's own names; of tied ones, one is enough.
        where: what they were read from, for the error.
        unused: tensors of the model that nobody reads; zeros stand in for them.
        dtype: of the model; `auto` is that of the tensors.

    Raises:
        ValueError: listing what is missing, not expected, of another shape, or tied by the config and unequal.
    """
    with torch.device("meta"):
        empty = model_class(config)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
    check_fit(empty, tensors, where, unused)
    tensors |= {name: torch.zeros(t.shape) for name, t in empty.state_dict().items() if name in unused}
    return type(empty).from_pretrained(None, config=config, state_dict=tensors, dtype=dtype)


def check_fit(model: nn.Module, tensors: dict[str, Tensor], where: str, unused: tuple[str, ...] = ()) -> None:
    """Raises ValueError unless `tensors` are the model's, by name and shape, those named in `unused` left out."""
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in unused}
    twins = _twins(model)
    missing = [name for name in expected if not any(twin in tensors for twin in twins.get(name, [name]))]
    unexpected = sorted(set(tensors) - set(expected))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    untied = [
        f"{one} != {other}"
        for one, *others in {tuple(names) for names in twins.values()}
        for other in others
        if one in tensors and other in tensors and not torch.equal(tensors[one], tensors[other])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "other shape": shapes, "tied but unequal": untied}
    if found := "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names):
        raise ValueError(f"{where} does not fit the model; {found}")


@torch.no_grad()
def fingerprint(model: nn.Module, parts: Iterable[str]) -> str:
    """Twelve digits over names, shapes and evenly sampled values of these submodules, in float32.

    Adapters do not count: a model with them stands on the same base as one without.
    """
    digest = hashlib.sha256()
    prefixes = tuple(f"{part}." for part in parts)
    state = {base_name(name): tensor for name, tensor in model.state_dict().items() if not is_adapter(name)}
    for name, tensor in sorted(state.items()):
        if name.startswith(prefixes):
            flat = tensor.flatten()
            sampled = flat[:: max(1, flat.numel() // SAMPLED)].float().cpu()
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + sampled.numpy().tobytes())
    return digest.hexdigest()[:12]


def _twins(model: nn.Module) -> dict[str, list[str]]:
    """For each tied parameter all its names."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return {name: same for same in names.values() if len(same) > 1 for name in same}
