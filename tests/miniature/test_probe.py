"""The vision encoder's gate: cells are cut out of the patches as they lie, and the linear map finds what is planted."""

from __future__ import annotations

import torch

from instructblip.miniature.probe import accuracy, by_cell, probe
from instructblip.models.vision import VisionEncoder
from tests.conftest import composed


def test_cells_hold_their_own_patches() -> None:
    numbers = torch.arange(36.0).view(6, 6)  # a patch of 8 pixels in each place
    cells = by_cell(numbers.view(1, 36, 1))  # (1, 9, 4)
    assert cells[0, 0].tolist() == [0, 1, 6, 7]
    assert cells[0, 5].tolist() == [16, 17, 22, 23]
    assert by_cell(torch.arange(9.0).view(1, 9, 1))[0, :, 0].tolist() == list(range(9))


def test_a_linear_map_finds_what_is_there_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(900, 12, generator=generator), torch.arange(900) % 3
    train = torch.arange(900) < 600
    assert accuracy(features, labels, train) < 0.45
    planted = features + 3 * torch.nn.functional.one_hot(labels, 12)
    assert accuracy(planted, labels, train) > 0.9


def test_an_encoder_that_sees_nothing_fails_the_gate() -> None:
    """Blind but for the places of its patches, it tells cells and neither shape nor colour."""
    torch.manual_seed(0)
    vision = VisionEncoder(composed("train", "model=miniature_llama", "model.vision.weights=null").model.vision).eval()
    seeing = probe(vision, pictures=240)
    with torch.no_grad():
        vision.encoder.embeddings.patch_embedding.weight.zero_()
    blind = probe(vision, pictures=240)
    assert blind["cell"] > 0.9 > 0.5 > max(blind["shape"], blind["colour"])
    assert blind["blur"] < 0.7 < seeing["colour"]
