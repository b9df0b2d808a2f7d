"""The backbone's chain, a two-hundredth of it: every part over the files of those before, by the ordinary programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from instructblip.models.instructblip import build
from tests.conftest import ROOT, composed

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]
FILES = {"vision", "llama", "t5", "stage1", "stage2_llama", "stage2_t5"}
COURSES = ("lookups", "chains", "questions", "text", "dialogues")
TAUGHT = {f"{course}-{family}" for course in COURSES for family in ("llama", "t5")} | {"references-t5"}
RUNS = TAUGHT | FILES - {"llama", "t5"}
MEGABYTE = 2**20


def chain(folder: Path, *given: str) -> str:
    command = [sys.executable, "-m", "instructblip.miniature.backbone", "--share", "0.005", "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *given], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_chain_makes_files_that_a_model_is_built_of(tmp_path: Path) -> None:
    said = chain(tmp_path)
    weights = tmp_path / "weights"
    files = {path.stem: path for path in weights.glob("*.safetensors")}
    assert set(files) == FILES
    assert sum(path.stat().st_size for path in files.values()) < 16 * MEGABYTE
    assert {tensor.dtype for path in files.values() for tensor in load_file(path).values()} == {torch.bfloat16}
    card = json.loads((weights / "card.json").read_text())
    assert card["seed"] == 0 and card["share"] == 0.005 and card["losses"].keys() == RUNS
    assert all(losses and losses[0][1] > 0 for losses in card["losses"].values())
    assert {"llama what-at", "t5 where"} <= set(card["lacking"])  # a two-hundredth has learnt nothing
    assert f"too little of {card['lacking'][0]}" in said
    steps = {run: losses[-1][0] for run, losses in card["losses"].items()}
    assert (steps["lookups-llama"], steps["chains-llama"]) == (8, 20)  # what is not learnt has twice its steps of ten
    assert (steps["text-llama"], steps["text-t5"]) == (18, 9)  # an encoder finds it sooner
    assert steps["dialogues-llama"] == steps["dialogues-t5"] == 10  # but for references
    rates = [OmegaConf.load(tmp_path / f"runs/{course}-llama/config.yaml").optim.min_lr for course in COURSES]
    assert rates[0] > rates[1] > rates[3]  # look-ups form at a high rate, what is built of them at a falling one
    for each in ("llama", "t5"):
        config = composed(
            "train", "experiment=miniature", f"model=miniature_{each}",
            f"model.vision.weights={weights}/vision.safetensors", f"model.llm.weights={weights}/{each}.safetensors",
            f"model.init=[{weights}/stage1.safetensors,{weights}/stage2_{each}.safetensors]",
        ).model  # fmt: skip
        model = build(config, seed=0)
        given = load_file(files[f"stage2_{each}"])["language_projection.weight"]
        torch.testing.assert_close(model.language_projection.weight, given.float(), rtol=0, atol=0)
        assert next(model.llm.parameters()).dtype == torch.float32 and not model.llm.training

    again = {name: files[name].read_bytes() for name in ("llama", "stage2_llama")}
    for name in again:
        files[name].unlink()
    for run in (tmp_path / "runs").glob("*llama"):
        shutil.rmtree(run)
    chain(tmp_path, "--families", "llama")
    assert {name: files[name].read_bytes() for name in again} == again
