"""Masked patches: what is hidden is not seen, and nothing else is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from instructblip.models.masked import MaskedPatches
from instructblip.models.vision import VisionEncoder
from tests.conftest import composed


def parts() -> tuple[VisionEncoder, MaskedPatches, Tensor]:
    torch.manual_seed(0)
    vision = VisionEncoder(composed("train", "model=miniature_llama", "model.vision.weights=null").model.vision).eval()
    return vision, MaskedPatches(vision), torch.randn(2, 3, 48, 48)


def hiding(*patches: int) -> Tensor:
    hidden = torch.zeros(2, 36, dtype=torch.bool)
    hidden[:, list(patches)] = True
    return hidden


def test_the_error_is_of_the_hidden_patches_alone() -> None:
    vision, masked, pixels = parts()
    with torch.no_grad():
        masked.head.weight.zero_()
        masked.head.bias.zero_()  # says the mean colour everywhere
        error = masked(vision, pixels, hiding(7))
    assert masked.patches == 36
    torch.testing.assert_close(error, pixels[:, :, 8:16, 8:16].square().flatten(1).mean(1))


def test_what_is_hidden_is_not_seen() -> None:
    vision, masked, pixels = parts()
    seen: list[Tensor] = []
    vision.register_forward_hook(lambda module, inputs, output: seen.append(output))
    other = pixels.clone()
    other[:, :, 8:16, 8:16] += 1.0
    with torch.no_grad():
        errors = [masked(vision, each, hiding(7)) for each in (pixels, other)]
        masked(vision, other, hiding(8))
    torch.testing.assert_close(seen[0], seen[1])
    assert not torch.allclose(errors[0], errors[1])
    assert not torch.allclose(seen[1], seen[2])


def test_nothing_hidden_costs_nothing() -> None:
    vision, masked, pixels = parts()
    assert masked(vision, pixels, torch.zeros(2, 36, dtype=torch.bool)).tolist() == [0.0, 0.0]
