"""Weights for other programs: what `transformers` loads as it is, and the command that converts."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2Processor,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from instructblip.config.model import ModelConfig
from instructblip.data.transforms import evaluation_pixels
from instructblip.models import checkpoint, convert, huggingface
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.tokenizers import tokenizers
from instructblip.models.weights import read
from tests.conftest import composed

from .conftest import GREEDY, close, shaken, until_eos
from .test_checkpoint import same, without_key_bias

PROMPTS = ["what is on the left?", "a short caption of the image:"]


def tiny(llm: str, aware: bool = True) -> ModelConfig:
    """A tiny model with tokenizers, and cross-attention as BLIP-2 has it."""
    config = composed("train", "experiment=miniature/scratch", f"model=tiny_{llm}").model
    config.unfreeze = []
    config.ln_vision_eps = 1e-6
    config.qformer.cross_attention_frequency = 2
    config.qformer.instruction_aware = aware
    return config


@pytest.fixture(params=[True, False], ids=["aware", "unaware"])
def aware(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def written(llm: str, aware: bool, tmp_path: Path) -> tuple[InstructBlip, ModelConfig, Path]:
    config = tiny(llm, aware)
    model = without_key_bias(shaken(build(config, seed=0)))
    huggingface.write_folder(model, config, tokenizers(config), tmp_path / "hf")
    return model, config, tmp_path / "hf"


def test_transformers_and_back(written: tuple[InstructBlip, ModelConfig, Path], aware: bool) -> None:
    model, config, folder = written
    found = huggingface.model_config(folder)
    same(model, build(found, seed=1))
    assert found.qformer.instruction_aware == aware and found.ln_vision_eps == 1e-6
    assert (found.vision.mean, found.vision.std) == (config.vision.mean, config.vision.std)
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(found.llm, name) == getattr(config.llm, name)
    assert found.llm.config["vocab_size"] == 1000, "the row of <image> is cut"
    if aware:
        both, theirs = tokenizers(config), tokenizers(found)
        for prompt in PROMPTS:
            assert (
                theirs.llm(prompt, add_special_tokens=False).input_ids
                == both.llm(prompt, add_special_tokens=False).input_ids
            )
            assert theirs.qformer(prompt).input_ids == both.qformer(prompt).input_ids


def test_transformers_loads_it_as_it_is(written: tuple[InstructBlip, ModelConfig, Path], llm: str, aware: bool) -> None:
    """Model and processor answer as ours does from picture and words, without torchvision."""
    model, config, folder = written
    model_class = InstructBlipForConditionalGeneration if aware else Blip2ForConditionalGeneration
    oracle, report = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (oracle.config.image_token_index, oracle.config.num_query_tokens) == (1000, 8)
    processor = (InstructBlipProcessor if aware else Blip2Processor).from_pretrained(folder)
    pictures = [Image.effect_noise((60, 40 + 9 * i), 80).convert("RGB") for i in range(2)]
    asked = processor(images=pictures, text=PROMPTS, padding=True, return_tensors="pt")

    both = tokenizers(config)
    pixels = torch.stack([evaluation_pixels(picture, config.vision.image_size) for picture in pictures])
    before, after = ([], [both.llm.eos_token_id]) if llm == "t5" else ([both.llm.bos_token_id], [])
    rows = [before + both.llm(prompt, add_special_tokens=False).input_ids + after for prompt in PROMPTS]
    assert [[i for i in row if i not in (1000, 0)] for row in asked["input_ids"].tolist()] == rows
    assert (asked["attention_mask"][0, -1] == 0) == (llm == "t5"), "a causal model is padded on the left"
    assert (asked["input_ids"] == 1000).sum(dim=1).tolist() == [8, 8]
    torch.testing.assert_close(
        (pixels / 255 - model.vision.mean) / model.vision.std, asked["pixel_values"], rtol=0, atol=0.05
    )

    for row, prompt in enumerate(PROMPTS):  # one by one: the processor pads the Q-Former's text left with the LLM's
        asked = processor(images=pictures[row], text=prompt, return_tensors="pt")
        text = {name: asked[name][:, 8:] for name in ("input_ids", "attention_mask")}
        question = both.qformer([prompt], return_tensors="pt")
        ours = model.generate(asked["pixel_values"], question.input_ids, question.attention_mask, **text, **GREEDY)
        theirs = oracle.generate(**asked, do_sample=False, num_beams=1, max_new_tokens=7)
        theirs = theirs[:, 1:] if llm == "t5" else theirs[:, asked["input_ids"].size(1) :]
        assert until_eos(ours[0].tolist()) == until_eos(theirs[0].tolist())


def test_the_new_row_is_never_the_largest(written: tuple[InstructBlip, ModelConfig, Path], aware: bool) -> None:
    tensors = read(str(written[2])).of("llm")
    table = tensors.get("lm_head.weight", tensors.get("shared.weight"))
    assert table is not None and len(table) == 1001
    logits = torch.randn(50, table.size(1), generator=torch.Generator().manual_seed(0)) @ table.T
    close(logits[:, 1000], logits[:, :1000].mean(dim=1))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint", *map(str, arguments)])
    convert.main()


def test_the_command_goes_round(
    written: tuple[InstructBlip, ModelConfig, Path],
    aware: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """transformers -> LAVIS -> transformers, and -> trainable; nothing of it differs."""
    model, config, folder = written
    monkeypatch.setenv("COLUMNS", "200")
    if not aware:  # a BLIP-2 folder has no tokenizer for a Q-Former
        command(monkeypatch, folder, tmp_path / "lavis", "--format", "lavis")
        return
    command(monkeypatch, folder, tmp_path / "lavis", "--format", "lavis")
    report = capsys.readouterr().out
    assert report.count("0.0e+00") == 5 + config.qformer.num_hidden_layers + 1
    assert "qformer.layers.1" in report and str(folder)[:20] in report
    found = huggingface.model_config(folder)
    found.llm.weights = str(tmp_path / "lavis/llm")
    OmegaConf.save(OmegaConf.create({"model": OmegaConf.structured(found)}), tmp_path / "model.yaml")
    trimmed = tmp_path / "lavis/instruct_blip_trimmed.pth"
    command(
        monkeypatch,
        trimmed,
        tmp_path / "again",
        "--format",
        "hf",
        "--config",
        tmp_path / "model.yaml",
        f"model.vision.weights={tmp_path}/lavis/eva_vit_g.pth",
    )
    found.vision.weights = str(tmp_path / "lavis/eva_vit_g.pth")
    same(model, build(huggingface.model_config(tmp_path / "again"), seed=1))
    capsys.readouterr()
    command(monkeypatch, folder, tmp_path / "trained.safetensors", "--format", "trainable")
    assert capsys.readouterr().out.count("not in this format") == 2
    found.init = str(tmp_path / "trained.safetensors")
    same(model, build(found, seed=1))


def test_a_run_is_converted_with_its_own_base(
    llm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(llm)
    huggingface.write_folder(build(config, seed=0), config, tokenizers(config), tmp_path / "hf")
    base = huggingface.model_config(tmp_path / "hf")
    trained = shaken_between(build(base, seed=0))
    run = tmp_path / "run"
    (run / "checkpoints/step-00000003").mkdir(parents=True)
    checkpoint.write_trainable(trained, run / "checkpoints/step-00000003/model.safetensors")
    OmegaConf.save(OmegaConf.create({"model": OmegaConf.structured(base)}), run / "config.yaml")
    command(monkeypatch, run, tmp_path / "out", "--format", "hf")
    same(trained, build(huggingface.model_config(tmp_path / "out"), seed=1))


def shaken_between(model: InstructBlip) -> InstructBlip:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(("vision.", "llm.")):
                parameter += 0.1
    return model


def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loose = tmp_path / "x.pth"
    torch.save({}, loose)
    (tmp_path / "there").mkdir()
    (tmp_path / "bad.yaml").write_text("vision: {}\n")
    config = tiny("llama")
    huggingface.write_folder(shaken(build(config, seed=0)), config, tokenizers(config), tmp_path / "hf")
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "no_words").mkdir()
    (tmp_path / "no_words/config.json").write_text('{"model_type": "blip-2"}')
    shutil.copytree(tmp_path / "hf", tmp_path / "cut")
    whole = (tmp_path / "hf/model.safetensors").read_bytes()
    (tmp_path / "cut/model.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "good.yaml").write_text("model: {name: x}\n")
    for arguments, said in (
        ((tmp_path / "llama", "out"), "unknown model type in"),
        ((tmp_path / "no_words", "out"), "has no tokenizer.json"),
        ((tmp_path / "cut", "out"), "model.safetensors is no whole safetensors file"),
        ((loose, "out", "--config", tmp_path / "good.yaml", "model.nmae=y"), "nmae"),
        ((loose, "out"), "x.pth does not say how its model is built; give --config"),
        ((loose, "out", "--config", tmp_path / "bad.yaml"), "bad.yaml has no model: in it"),
        ((tmp_path / "none.pth", "out"), "none.pth is not there"),
        ((tmp_path / "there", "out"), "neither a folder of transformers nor a run"),
        ((tmp_path / "hf", tmp_path / "there"), "there is there already"),
        ((tmp_path / "hf", tmp_path / "out"), "LAVIS has no bias for keys"),
    ):
        with pytest.raises(SystemExit) as ended:
            command(monkeypatch, *arguments, "--format", "lavis")
        error = capsys.readouterr().err
        assert ended.value.code == 2 and said in error and "Traceback" not in error
