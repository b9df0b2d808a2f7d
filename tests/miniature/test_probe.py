"""The vision encoder's gate: cells are cut out of the patches as they lie, and the linear map finds what is planted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from instructblip.miniature.probe import accuracy, by_cell, position, probe, probe_queries
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


def test_a_position_is_read_off_a_patch_alone() -> None:
    """Patches that are told apart by their order only have none."""
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(120, 9, 12, generator=generator)
    assert position(content) < 0.25
    assert position(content + 3 * torch.randn(9, 12, generator=generator)) > 0.9


class Reddest:
    """In place of a model: of each cell, how much of it is red."""

    vision = SimpleNamespace(image_size=48)

    def query_embeds(self, pixels: Tensor, *instruction: Tensor) -> Tensor:
        red, green, blue = pixels.float().unbind(1)
        reddish = ((red > 150) & (green < 90) & (blue < 90)).float()
        return torch.nn.functional.avg_pool2d(reddish, 16).flatten(1)[:, None]  # (N, 1, 9)


def test_queries_are_asked_for_one_thing_among_others() -> None:
    model: Any = Reddest()
    found = probe_queries(model, pictures=600)
    assert found["cell"] > 0.9 and found["size"] > 0.7 > 0.5 > found["shape"]
    assert found == probe_queries(model, pictures=600)


def test_an_encoder_that_sees_nothing_fails_the_gate() -> None:
    """Blind but for the places of its patches, it tells cells and neither shape nor colour."""
    torch.manual_seed(0)
    vision = VisionEncoder(composed("train", "model=miniature_llama", "model.vision.weights=null").model.vision).eval()
    seeing = probe(vision, pictures=240)
    with torch.no_grad():
        vision.encoder.embeddings.patch_embedding.weight.zero_()
    blind = probe(vision, pictures=240)
    assert min(blind["cell"], blind["position"]) > 0.9 > 0.5 > max(blind["shape"], blind["colour"])
    assert blind["blur"] < 0.7 < seeing["colour"]
