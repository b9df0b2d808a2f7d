from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from instructblip.evaluation.subject import subject
from instructblip.models.huggingface import write_folder
from instructblip.models.instructblip import build
from instructblip.models.loaded import weights_hash
from instructblip.models.tokenizers import tokenizers
from tests.conftest import composed

from .conftest import World


def test_one_of_run_and_checkpoint(world: World) -> None:
    for given in ({"run": None}, {"checkpoint": "x"}):
        config = world.config()
        for name, value in given.items():
            setattr(config, name, value)
        with pytest.raises(ValueError, match="one of the two"):
            subject(config)


def test_a_checkpoint_of_others_has_its_results_under_released(world: World, tmp_path: Path) -> None:
    config = world.config()
    config.run, config.checkpoint = None, str(tmp_path / "blip.pth")
    with pytest.raises(ValueError, match=r"blip\.pth is not there"):
        subject(config)
    (tmp_path / "blip.pth").touch()
    found = subject(config)
    assert (found.name, found.results) == ("released/blip", world.run.parent / "released" / "blip")
    config.name = "mine"
    assert subject(config).results.name == "mine"
    config.paths.data = ""
    with pytest.raises(ValueError, match=r"paths\.data=DIR"):
        subject(config).prepared()


def test_a_folder_of_transformers_is_loaded_and_known_by_its_weights(world: World, tmp_path: Path) -> None:
    own = composed("train", "experiment=miniature/scratch").model
    model = build(own, seed=1).eval()
    write_folder(model, own, tokenizers(own), tmp_path / "hf")
    config = world.config()
    config.run, config.checkpoint = None, str(tmp_path / "hf")
    loaded = subject(config).load(config, "cpu")
    assert loaded.checkpoint == weights_hash(model) == weights_hash(loaded.model)
    with torch.no_grad():
        model.query_tokens += 1
    assert weights_hash(model) != loaded.checkpoint


def test_a_checkpoint_for_another_language_model_is_refused(world: World, tmp_path: Path) -> None:
    """The projection is as wide as the language model that the checkpoint was trained for."""
    own = composed("train", "experiment=miniature/scratch").model
    write_folder(build(own, seed=1), own, tokenizers(own), tmp_path / "hf")
    facts = json.loads((tmp_path / "hf" / "config.json").read_text(encoding="utf-8"))
    facts["text_config"]["hidden_size"] *= 2
    (tmp_path / "hf" / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    config = world.config()
    config.run, config.checkpoint = None, str(tmp_path / "hf")
    with pytest.raises(ValueError, match=r"does not fit the model; .*other shape"):
        subject(config).load(config, "cpu")


def test_a_file_that_does_not_say_how_it_is_built_asks_for_a_config(world: World, tmp_path: Path) -> None:
    (tmp_path / "blip.pth").touch()
    config = world.config()
    config.run, config.checkpoint = None, str(tmp_path / "blip.pth")
    with pytest.raises(ValueError, match="does not say how its model is built"):
        subject(config).load(config, "cpu")
    OmegaConf.save(OmegaConf.create({"steps": 1}), tmp_path / "c.yaml")
    config.config = str(tmp_path / "c.yaml")
    with pytest.raises(ValueError, match="has no model: in it"):
        subject(config).load(config, "cpu")
