"""What of a model is saved with a run, and whose frozen base it belongs to.

    python -m instructblip.models.checkpoint SRC DST --format hf|lavis|trainable

converts between formats (`convert.py`).
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from instructblip.models.instructblip import InstructBlip
from instructblip.models.lora import is_adapter
from instructblip.models.pretrained import check_fit, fingerprint
from instructblip.models.sharding import whole
from instructblip.models.stage1 import Stage1
from instructblip.models.weights import BASE, read

Trained = InstructBlip | Stage1  # what a run trains


def trainable_state(model: Trained) -> dict[str, Tensor]:
    """Every tensor outside the frozen backbones, the last text feed-forward included, and the adapters in them.

    Whole, also where the model is sharded; then all processes call it together.
    """
    frozen = tuple(f"{part}." for part in model.frozen)
    once = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {
        name: whole(tensor).contiguous()
        for name, tensor in model.state_dict().items()
        if name in once and (not name.startswith(frozen or "\0") or is_adapter(name))
    }


def write_trainable(model: Trained, path: Path) -> None:
    """Writes them as safetensors, with the fingerprint of the frozen base in the file's header."""
    save_file(trainable_state(model), path, metadata={BASE: base_fingerprint(model)})


def load_trainable(model: Trained, state: dict[str, Tensor]) -> None:
    """Raises ValueError with the names of tensors that are missing, not expected, or of another shape."""
    own = trainable_state(model)
    check_fit(model, state, "checkpoint", unused=tuple(name for name in model.state_dict() if name not in own))
    model.load_state_dict(state, strict=False)


def base_fingerprint(model: Trained) -> str:
    """Twelve digits that tell the frozen backbones apart."""
    return fingerprint(model, model.frozen)


def load_trained(model: InstructBlip, path: Path) -> None:
    """A file of `write_trainable`. Raises ValueError also when it belongs to another frozen base, naming both."""
    weights, base = read(str(path)), base_fingerprint(model)
    if weights.base not in (None, base):
        raise ValueError(f"{path} was trained on the frozen base {weights.base}, this model has the base {base}")
    load_trainable(model, weights.tensors)


if __name__ == "__main__":
    from instructblip.models.convert import main  # here, because it imports this module

    main()
