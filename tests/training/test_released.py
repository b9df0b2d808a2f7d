"""A published model has a run directory that says so, is loaded as it was published, and is never trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructblip.choices import Purpose
from instructblip.config.training import TrainConfig
from instructblip.models.checkpoint import trainable_state, write_trainable
from instructblip.models.instructblip import build
from instructblip.models.paths import init_paths
from instructblip.training.checkpoint import inherited
from instructblip.training.datamodule import mixture_recipes
from instructblip.training.released import lineage, place
from instructblip.training.run import load_model
from tests.conftest import composed

Tiny = Callable[..., TrainConfig]


@pytest.fixture
def published(tiny: Tiny, tmp_path: Path) -> TrainConfig:
    """A tiny model as somebody else may have published it."""
    config = tiny("purpose=evaluate", "name=theirs")
    write_trainable(build(config.model, seed=7), tmp_path / "published.safetensors")
    config.model.starts = {"instructblip": str(tmp_path / "published.safetensors")}
    config.model.seen = {"instructblip": ["vqav2"]}
    config.model.init = "instructblip"
    return config


def test_its_run_directory_is_written_and_loaded(published: TrainConfig) -> None:
    said = place(published)
    assert "evaluate.py run=released/theirs" in said
    folder = Path(published.paths.runs) / "released/theirs"
    loaded = load_model(folder, "cpu")
    assert not loaded.model.training
    theirs = load_file(init_paths(published.model)[0])
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in trainable_state(loaded.model).items())
    assert [(seen.recipe, seen.split, seen.drawn) for seen in lineage(folder)] == [("vqav2", "train", 443757)]
    assert place(published) == said, "it may be written again"
    assert load_model(folder, "cpu").checkpoint == loaded.checkpoint
    theirs["query_tokens"] = theirs["query_tokens"] + 1
    save_file(theirs, init_paths(published.model)[0])
    assert load_model(folder, "cpu").checkpoint != loaded.checkpoint


def test_what_starts_from_a_published_model_inherits_its_lineage(published: TrainConfig) -> None:
    """By its name or its path; a file nobody declared has seen nothing that is known of."""
    (theirs,) = inherited(published.model).values()
    assert [str(seen) for seen in theirs] == ["vqav2/train (443,757 samples)"]
    published.model.init = init_paths(published.model)[0]
    assert list(inherited(published.model).values()) == [theirs]
    published.partition.held_in = ["coco_caption"]
    published.purpose = Purpose.instruction_tune
    published.mixture.recipes = ["coco_caption"]
    with pytest.raises(ValueError, match=r"has seen vqav2/train .* must not inherit in this partition"):
        mixture_recipes(published)
    published.model.seen = {}
    assert list(inherited(published.model).values()) == [[]]


@pytest.mark.parametrize("init", ["instructblip", "instructblip_hf"])
def test_the_published_models_have_seen_the_papers_held_in_datasets(init: str) -> None:
    config = composed("train", "experiment=flant5xl", f"init={init}")
    (seen,) = inherited(config.model).values()
    assert [each.recipe for each in seen] == config.partition.held_in
    assert all(each.drawn for each in seen)


def test_another_model_of_the_same_name_and_absent_weights_are_refused(published: TrainConfig) -> None:
    place(published)
    published.model.freeze_ln_vision = True
    with pytest.raises(ValueError, match="was written for another model; choose another name"):
        place(published)
    published.model.starts["instructblip"] = "nowhere.pth"
    with pytest.raises(ValueError, match=r"weights not found: model.init=nowhere\.pth"):
        place(published)


def test_a_dry_run_writes_nothing(published: TrainConfig) -> None:
    published.dry_run = True
    assert "nothing to train" in place(published)
    assert not Path(published.paths.runs).exists()
