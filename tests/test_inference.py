"""Five lines from a run directory to answers, and every kind of picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instructblip.config import TrainConfig
from instructblip.inference import Assistant, load
from instructblip.training.run import opened
from train import fit

QUESTION = "What color is the circle?"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))


@pytest.fixture
def assistant(tiny: Callable[..., TrainConfig]) -> Assistant:
    with opened(tiny("steps=1")) as run:
        fit(tiny("steps=1"), run)
    return load(run)


def test_one_answer_several_and_a_ranking(assistant: Assistant) -> None:
    answer = assistant.answer(PICTURE, QUESTION)
    assert isinstance(answer, str) and answer == assistant.answer(PICTURE, QUESTION)
    drawn = assistant.answers(PICTURE, QUESTION, count=4, seed=3)
    assert drawn == assistant.answers(PICTURE, QUESTION, count=4, seed=3) and len({text for text, _ in drawn}) == len(
        drawn
    )
    ranked = assistant.rank(PICTURE, QUESTION, ["red", "blue", "red"])
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True) and {text for text, _ in ranked} == {"red", "blue"}
    again = dict(assistant.rank(PICTURE, QUESTION, [text for text, _ in drawn]))
    assert all(again[text] == pytest.approx(score, abs=1e-4) for text, score in drawn)


def test_every_kind_of_picture_is_the_same_picture(assistant: Assistant, tmp_path: Path) -> None:
    path, array = tmp_path / "photo.png", np.asarray(PICTURE)
    PICTURE.save(path)
    kinds = [PICTURE, path, str(path), array, torch.from_numpy(array.copy()), array.transpose(2, 0, 1)]
    features = [assistant.features(kind, QUESTION) for kind in kinds]
    assert features[0].shape == (8, 64) and all(torch.equal(features[0], other) for other in features[1:])
    assert not torch.equal(features[0], assistant.features(PICTURE, "Where is the star?")), "the instruction matters"


def test_a_list_of_pictures_is_a_clip(assistant: Assistant) -> None:
    clip = [PICTURE, PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    frames = torch.cat([assistant.features(frame, QUESTION) for frame in clip])
    assert torch.allclose(assistant.features(clip, QUESTION), frames, atol=1e-5)
    assert assistant.answer(clip, QUESTION, max_new_tokens=2) is not None


def test_what_cannot_be_answered_is_refused(assistant: Assistant, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no picture that can be read"):
        assistant.answer(tmp_path / "nothing.jpg", QUESTION)
    with pytest.raises(ValueError, match=r"array of float64 \(4, 4\) is no picture"):
        assistant.answer(np.zeros((4, 4)), QUESTION)
    with pytest.raises(ValueError, match=r"instructions \[0\] of 1 are empty"):
        assistant.answer(PICTURE, " ")
    with pytest.raises(ValueError, match="0 candidates"):
        assistant.rank(PICTURE, QUESTION, [])
    with pytest.raises(ValueError, match="neither a folder of transformers nor a run"):
        load(tmp_path)
