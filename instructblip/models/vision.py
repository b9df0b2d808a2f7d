"""The image encoder: any vision transformer of `transformers`, frozen, read before its own final norm.

InstructBLIP's is EVA-CLIP ViT-g/14 (LAVIS `eva_vit.py`): 39 layers, 1408 wide, 257 tokens with CLS, all used.

Shapes: N pictures, S image size, P image tokens, V vision width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionModel, InstructBlipVisionModel, SiglipVisionModel

from instructblip.config.model import VisionConfig
from instructblip.models.lavis import read_eva
from instructblip.models.pretrained import from_folder, from_tensors
from instructblip.names import lookup

ENCODERS: dict[str, Any] = {
    "instructblip_vision_model": InstructBlipVisionModel,
    "clip_vision_model": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,  # SigLIP 2 of fixed resolution has this type too
}
FINAL_NORM = ("post_layernorm.weight", "post_layernorm.bias")  # not part of a `VisionEncoder`


class VisionEncoder(nn.Module):
    """Pixels to image tokens. The mean and std of the pixels belong to the encoder and stand here.

    Where the encoder learnt its positions at another size than `config.image_size`, they are interpolated
    (bicubic, as in `transformers`).
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    def __init__(self, config: VisionConfig, tensors: dict[str, Tensor] | None = None) -> None:
        """Weights from `tensors`, or from `config.weights`: a .safetensors file, a `transformers` folder or LAVIS'
        `eva_vit_g.pth`; else drawn.

        Raises:
            ValueError: `config.type` is not one of `ENCODERS`, or the weights do not fit or are of another image size.
        """
        super().__init__()
        self.image_size = config.image_size
        self.encoder = _encoder(config, tensors)
        self.interpolate_pos_encoding = self.encoder.config.image_size != config.image_size
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)

    @property
    def width(self) -> int:
        """V."""
        return int(self.encoder.config.hidden_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches, the last image tokens; before them some encoders have CLS."""
        side = self.image_size // int(self.encoder.config.patch_size)
        return side, side

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool | None = None) -> Tensor:
        """All image tokens (N, P, V) of pictures (N, 3, S, S): uint8, or float that is normalised already.

        With `interpolate_pos_encoding=True` a batch may have a size of its own; None is what the config says.

        Raises:
            ValueError: another size than `config.image_size` without that, or another dtype.
        """
        self._check(pixel_values, any_size=bool(interpolate_pos_encoding))
        pixel_values = self.normalized(pixel_values)
        interpolated = self.interpolate_pos_encoding if interpolate_pos_encoding is None else interpolate_pos_encoding
        return self.encoder(pixel_values, interpolate_pos_encoding=interpolated).last_hidden_state

    def normalized(self, pixel_values: Tensor) -> Tensor:
        """Floats of pictures (N, 3, S, S): of uint8 with mean and std, others as they are."""
        return (pixel_values / 255 - self.mean) / self.std if pixel_values.dtype == torch.uint8 else pixel_values

    def _check(self, pixel_values: Tensor, any_size: bool) -> None:
        expected = (3, self.image_size, self.image_size)
        if pixel_values.shape[1:] != expected and not any_size:
            raise ValueError(
                f"pictures are {tuple(pixel_values.shape[1:])}, the vision encoder takes {expected}; "
                "resize them or set model.vision.image_size"
            )
        if pixel_values.dtype != torch.uint8 and not pixel_values.is_floating_point():
            raise ValueError(f"pixel_values are {pixel_values.dtype}; give torch.uint8 (0 to 255) or normalised floats")


def _encoder(config: VisionConfig, tensors: dict[str, Tensor] | None) -> Any:
    encoder_class = lookup(config.type, ENCODERS, "vision type")
    # The EVA ViT's default range in transformers, 1e-10, is only meant to be overwritten; 0.02 is LAVIS'.
    options = {"initializer_range": 0.02, "image_size": config.image_size, **config.config}
    if config.type == "siglip_vision_model":
        options["vision_use_head"] = False
    if config.weights is not None and Path(config.weights).is_dir():
        _check_size(encoder_class.config_class.from_pretrained(config.weights).image_size, options["image_size"])
    model_config = encoder_class.config_class(**options)
    where = config.weights or "model.init"
    if tensors is None and config.weights is not None and not Path(config.weights).is_dir():
        tensors = _read(config.weights, depth=model_config.num_hidden_layers)
    if tensors is not None:
        encoder = from_tensors(encoder_class, model_config, tensors, where, FINAL_NORM, dtype=torch.float32)
    elif config.weights is not None:
        encoder = from_folder(encoder_class, config.weights, options)
    else:
        encoder = encoder_class(model_config)
        if config.position_range is not None:
            nn.init.normal_(_positions(encoder), std=config.position_range)
    encoder.post_layernorm = nn.Identity()  # `ln_vision` takes its place and is trained
    return encoder


def _positions(encoder: nn.Module) -> nn.Parameter:
    (found,) = (each for name, each in encoder.named_parameters() if "position_embedding" in name)
    return found


def _check_size(learnt: int, stated: int) -> None:
    """Positions are interpolated when that is said, never because a size was forgotten."""
    if learnt != stated:
        raise ValueError(
            f"the encoder's positions are for pictures of {learnt} pixels, model.vision.image_size is {stated}; set it "
            f"to {learnt}, or +model.vision.config.image_size={learnt} to interpolate them"
        )


def _read(path: str, depth: int) -> dict[str, Tensor]:
    return read_eva(path, depth) if path.endswith(".pth") else load_file(path)
