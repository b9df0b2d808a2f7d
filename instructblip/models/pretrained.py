"""Reading the weights of a backbone from a folder on this machine; nothing is ever downloaded."""

from __future__ import annotations

from typing import Any


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
