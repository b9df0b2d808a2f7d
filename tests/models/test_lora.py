"""Adapters: what learns, what is saved, what a merge leaves behind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instructblip.config.model import LoraConfig, ModelConfig
from instructblip.models.checkpoint import base_fingerprint, trainable_state
from instructblip.models.instructblip import InstructBlip, build, trainable_names
from instructblip.models.lora import merge_adapters
from instructblip.training import checkpoint
from instructblip.training.state import TrainState

from .conftest import BEAM, CANDIDATES, close, prompt_batch, tiny_config, training_batch
from .families import collator, inputs, shrunk, training_rows

pytest.importorskip("peft", reason="peft is not installed: pip install 'instructblip[lora]'")

MAPS = {"llama": ["llm.q_proj", "llm.v_proj"], "t5": ["llm.q", "llm.wo"]}
BOTH = {name: [*maps, "qformer.query", "qformer.up"] for name, maps in MAPS.items()}


def adapted(llm: str, targets: list[str], **changes: Any) -> ModelConfig:
    return replace(tiny_config(llm), lora=LoraConfig(targets, rank=2, alpha=4, **{"dropout": 0.0} | changes))


def learnt(model: InstructBlip) -> InstructBlip:
    """As after some training: the second matrix of an adapter begins at zero and does nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in trainable_names(model):
            parameter = model.get_parameter(name)
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def nll(model: InstructBlip, llm: str) -> Tensor:
    with torch.no_grad():
        return model(**training_batch(llm))


def test_fresh_adapters_change_nothing_and_learn_alone(llm: str) -> None:
    plain = build(tiny_config(llm), seed=0)
    model = build(adapted(llm, MAPS[llm]), seed=0)
    close(nll(model.eval(), llm), nll(plain.eval(), llm))
    names = set(trainable_names(model))
    added = names - set(trainable_names(plain))
    assert names > added and added == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert all(name.startswith("llm.model.") for name in added)
    model(**training_batch(llm)).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == names
    assert all(model.get_parameter(name).grad.any() for name in added if ".lora_B." in name)  # type: ignore[union-attr]


def test_an_adapted_qformer_learns_through_its_adapters_alone(llm: str) -> None:
    model = build(adapted(llm, BOTH[llm]), seed=0)
    names = set(trainable_names(model))
    assert all(".lora_" in name for name in names if name.startswith(("qformer.", "llm.")))
    assert {"query_tokens", "language_projection.weight", "ln_vision.weight"} < names
    unread = "qformer.layers.2.text_ffn"  # nothing reads it, so an adapter there could not learn
    assert not any(name.startswith(unread) for name in names)
    model(**training_batch(llm)).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == names


def test_weights_of_adapters_follow_the_seed_alone(llm: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (trainable_state(build(adapted(llm, BOTH[llm]), seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    down = [name for name in first if ".lora_A." in name]
    assert down and all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in down)


def test_adapters_are_saved_with_the_run_and_come_back(llm: str, tmp_path: Path) -> None:
    model = learnt(build(adapted(llm, BOTH[llm]), seed=0))
    state = TrainState(trainable_state(model), {})
    checkpoint.save(tmp_path, checkpoint.Record(1, base_fingerprint(model)), state, keep=1)
    found = checkpoint.last_checkpoint(tmp_path)
    assert found is not None
    again = build(adapted(llm, BOTH[llm]), seed=0)
    found.load_weights(again)
    assert torch.equal(nll(again.eval(), llm), nll(model, llm))
    assert base_fingerprint(model) == base_fingerprint(build(tiny_config(llm), seed=0))
    with pytest.raises(ValueError, match=r"does not fit.*lora_A"):
        found.load_weights(build(adapted(llm, MAPS[llm]), seed=0))


def test_a_merged_model_is_a_plain_one(llm: str) -> None:
    model, plain = learnt(build(adapted(llm, BOTH[llm]), seed=0)), build(tiny_config(llm), seed=0)
    before, ranked = nll(model, llm), model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    written = model.generate(**prompt_batch(llm), **BEAM)
    assert not torch.allclose(before, nll(plain.eval(), llm), atol=1e-2)
    merge_adapters(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    for merged in (model, plain.eval()):
        close(nll(merged, llm), before)
        for ours, theirs in zip(merged.rank(**prompt_batch(llm), candidates=CANDIDATES), ranked, strict=True):
            close(ours, theirs)
        assert torch.equal(merged.generate(**prompt_batch(llm), **BEAM), written)


def test_adapters_drop_out_while_training_though_their_part_is_frozen(llm: str) -> None:
    model = learnt(build(adapted(llm, MAPS[llm], dropout=0.5), seed=0))
    still = nll(model, llm)
    model.train()
    model.qformer.eval()
    torch.manual_seed(0)
    assert not torch.allclose(nll(model, llm), still, atol=1e-3)
    close(nll(model.eval(), llm), still)


@pytest.mark.parametrize(
    ("name", "target"),
    [("opt2.7b", "llm.q_proj"), ("qwen3_8b", "llm.gate_proj"), ("gemma_2b", "llm.o_proj"), ("flant5xl", "llm.wi_0")],
)
def test_every_family_takes_adapters(name: str, target: str, tmp_path: Path) -> None:
    config = replace(shrunk(name, tmp_path), lora=LoraConfig([target], rank=2, dropout=0.0))
    model = build(config, seed=0)
    batch = training_rows(collator(config), [("What?", "red"), ("Where is it?", "left of it")])
    model(**inputs(batch), labels=batch.labels).sum().backward()
    grown = [name for name, p in model.named_parameters() if ".lora_B." in name and p.grad is not None and p.grad.any()]
    assert grown
    learnt(model)
    with torch.no_grad():
        before = model(**inputs(batch), labels=batch.labels)
        merge_adapters(model)
        torch.testing.assert_close(model(**inputs(batch), labels=batch.labels), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("llm.q_prj", "unknown linear map of llm 'q_prj'; did you mean 'q_proj'"),
        ("q_proj", r"unknown part in model\.lora\.targets=q_proj"),
        ("vision.qkv", "unknown part"),
        ("qformer.norm", "unknown linear map of qformer 'norm'"),
    ],
)
def test_targets_that_are_no_linear_maps_are_refused(target: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(adapted("llama", [target]), seed=0)


def test_without_peft_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"model\.lora needs peft: pip install 'instructblip\[lora\]'"):
        build(adapted("llama", MAPS["llama"]), seed=0)
