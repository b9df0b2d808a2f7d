"""Vision encoders by type: what comes out, the pixels' normalisation, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instructblip.models.vision import ENCODERS, VisionEncoder

from .conftest import VISION, images, tiny_config

CONFIG = tiny_config().vision


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [("instructblip_vision_model", 17), ("clip_vision_model", 17), ("siglip_vision_model", 16)],
)
def test_every_token_of_the_last_layer_before_the_final_norm(kind: str, tokens: int) -> None:
    torch.manual_seed(0)
    vision = VisionEncoder(replace(CONFIG, type=kind)).eval()
    last: list[torch.Tensor] = []
    vision.encoder.encoder.layers[-1].register_forward_hook(lambda module, args, output: last.append(output))
    out = vision(images(2))
    assert out.shape == (2, tokens, 24) and vision.width == 24
    assert torch.equal(out, last[0])
    assert not any("post_layernorm" in name or "head" in name for name, _ in vision.named_parameters())
    assert vision.encoder.config._attn_implementation == "sdpa"


def test_all_types_are_tested() -> None:
    assert set(ENCODERS) == {"instructblip_vision_model", "clip_vision_model", "siglip_vision_model"}


def test_bytes_are_normalised_and_floats_are_not() -> None:
    vision = VisionEncoder(CONFIG).eval()
    pixels = images(2)
    by_hand = [(pixels[:, c] / 255 - CONFIG.mean[c]) / CONFIG.std[c] for c in range(3)]
    # One division more or less: fp32, numbers of order 1.
    torch.testing.assert_close(vision(pixels), vision(torch.stack(by_hand, dim=1)), rtol=0, atol=1e-5)
    assert set(vision.state_dict()) == {f"encoder.{name}" for name in vision.encoder.state_dict()}


def test_drawn_weights_have_a_range() -> None:
    vision = VisionEncoder(replace(CONFIG, config={k: v for k, v in VISION.items() if k != "initializer_range"}))
    assert 0.01 < float(vision.encoder.encoder.layers[0].mlp.fc1.weight.detach().std()) < 0.03


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_drawn_positions_may_have_a_range_of_their_own(kind: str) -> None:
    drawn = []
    for position_range in (None, 2.0):
        torch.manual_seed(0)
        drawn.append(VisionEncoder(replace(CONFIG, type=kind, position_range=position_range)).state_dict())
    (positions,) = (name for name in drawn[0] if "position_embedding" in name)
    assert 1.8 < float(drawn[1][positions].std()) < 2.2
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0] if name != positions)


def test_wrong_pictures_are_refused() -> None:
    vision = VisionEncoder(CONFIG)
    with pytest.raises(ValueError, match=r"pictures are \(3, 30, 28\), the vision encoder takes \(3, 28, 28\)"):
        vision(torch.zeros(1, 3, 30, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"pixel_values are torch.int64; give torch.uint8"):
        vision(torch.zeros(1, 3, 28, 28, dtype=torch.int64))


@pytest.mark.parametrize("kind", sorted(ENCODERS))
@pytest.mark.parametrize("size", [42, 14, 28])
def test_positions_are_interpolated_to_other_sizes(kind: str, size: int) -> None:
    """The oracle gets positions that were interpolated by hand, and knows no other size."""
    learnt = replace(CONFIG, type=kind, image_size=size, config=VISION | {"image_size": 28})
    torch.manual_seed(0)
    ours, oracle = VisionEncoder(learnt).eval(), VisionEncoder(replace(CONFIG, type=kind, image_size=size)).eval()
    state, (name,) = ours.state_dict(), [name for name in ours.state_dict() if "position_embedding" in name]
    table = state[name].view(-1, 24)  # (P, V)
    special = len(table) - 16
    grid = table[special:].unflatten(0, (4, 4)).permute(2, 0, 1)[None]  # (1, V, 4, 4)
    grid = torch.nn.functional.interpolate(grid, (size // 7, size // 7), mode="bicubic")
    table = torch.cat((table[:special], grid[0].flatten(1).T))
    oracle.load_state_dict(state | {name: table.view_as(oracle.state_dict()[name])})
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    found = ours(pixels)
    assert found.shape == (2, (size // 7) ** 2 + special, 24)
    torch.testing.assert_close(found, oracle(pixels), rtol=0, atol=1e-5)  # fp32, numbers of order 1


def test_a_folder_of_another_size_is_interpolated_only_when_that_is_said(tmp_path: Path) -> None:
    encoder_class = ENCODERS["instructblip_vision_model"]
    encoder_class(encoder_class.config_class(**VISION, image_size=28)).save_pretrained(tmp_path)
    larger = replace(CONFIG, weights=str(tmp_path), image_size=42)
    with pytest.raises(ValueError, match=r"for pictures of 28 pixels, model\.vision\.image_size is 42"):
        VisionEncoder(larger)
    assert VisionEncoder(replace(larger, config=VISION | {"image_size": 28})).interpolate_pos_encoding


def test_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown vision type 'clip_vision'; did you mean 'clip_vision_model'"):
        VisionEncoder(replace(CONFIG, type="clip_vision"))


def test_folder_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = ENCODERS["clip_vision_model"](ENCODERS["clip_vision_model"].config_class(**VISION, image_size=28))
    original.save_pretrained(tmp_path)
    vision = VisionEncoder(replace(CONFIG, type="clip_vision_model", weights=str(tmp_path)))
    loaded = vision.encoder.state_dict()
    assert loaded and all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in loaded.items())


def test_folder_of_a_smaller_model_is_refused(tmp_path: Path) -> None:
    encoder_class = ENCODERS["clip_vision_model"]
    encoder_class(encoder_class.config_class(**VISION | {"num_hidden_layers": 1}, image_size=28)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="lacks 16 tensors of CLIPVisionModel"):
        VisionEncoder(replace(CONFIG, type="clip_vision_model", weights=str(tmp_path)))
