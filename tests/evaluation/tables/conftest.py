"""Run directories made by hand: a config as `train.py` leaves it, scores, and a checkpoint's lineage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from instructblip.files import write_json
from tests.conftest import composed

PAPER = composed("report").partition
FACTS = {
    "profile": "paper", "variant": None, "images": "own", "limit": None, "llm_limit": None, "checkpoint": "c0ffee",
    "manifest": "f00d", "predictions": "beef",
}  # fmt: skip
Made = Callable[..., Path]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make(runs: Path) -> Made:
    """`make("vicuna7b", gqa={"value": 0.492, "n": 12578, "metric": "gqa_accuracy"}, seed=2, seen=[...])`."""

    def made(
        *experiment: str, name: str = "", seed: int = 1, seen: tuple[dict[str, Any], ...] = (), finished: bool = True,
        config: dict[str, Any] | None = None, **scores: dict[str, Any],
    ) -> Path:  # fmt: skip
        folder = runs / (name or f"{'+'.join(experiment)}-s{seed}".replace("/", "-"))
        facts: dict[str, Any] = {
            "experiment": list(experiment), "name": folder.name, "seed": seed, "steps": 60000, "batch_size": 128,
            "group_size": 8, "model": {"name": "vicuna7b"}, "mixture": {"name": "paper"},
            "partition": {"held_in": PAPER.held_in, "held_out": PAPER.held_out}, "paths": {"raw": "raw", "data": "none"},
        }  # fmt: skip
        folder.mkdir(parents=True)
        OmegaConf.save(OmegaConf.merge(facts, config or {}), folder / "config.yaml")
        if finished:
            write_json(folder / "finished.json", {})
        checkpoint = folder / "checkpoints" / "step-00060000"
        write_json(checkpoint / "state.json", {"step": 60000, "base": "", "lineage": list(seen)})
        write_json(checkpoint / "manifest.json", {"model.safetensors": "c0ffee"})
        for recipe, score in scores.items():
            write_json(folder / "eval" / recipe / "paper-0" / "scores.json", {**FACTS, "recipe": recipe, **score})
        return folder

    return made
