"""The plan: exact bytes against real tensors, activations against what autograd keeps, the paper, and proposals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.benchmarks import memory
from instructblip.config.training import TrainConfig
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.skeleton import skeleton
from instructblip.training.optim import optimizer
from instructblip.training.plan import paper
from instructblip.training.plan.memory import (
    Setting,
    Texts,
    causal_layers,
    parameters,
    qformer_kept,
    state,
    t5_layers,
    working,
)
from instructblip.training.plan.page import show
from instructblip.training.plan.proposal import proposed
from tests.conftest import composed

ROWS, PROMPT, RESPONSE = 3, 20, 12


def full(name: str, *overrides: str) -> TrainConfig:
    config = composed("train", f"experiment={name}", "paths.weights=w", "paths.data=nowhere", *overrides)
    assert isinstance(config, TrainConfig)
    return config


def kept(model: InstructBlip, run: Callable[[], Tensor], dtype: torch.dtype | None) -> int:
    """Bytes that autograd keeps for backward, beside the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    context = torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), context:
        run()
    return sum(found.values())


def reduced(name: str, layers: int, dtype: torch.dtype) -> InstructBlip:
    config = composed("train", "experiment=miniature/scratch", f"model={name}").model
    config.unfreeze = []
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": layers, "intermediate_size": 320}
    own = {"d_model": 128, "d_ff": 320, "num_layers": layers, "d_kv": 32}
    config.llm.config |= sizes | (own if name == "tiny_t5" else {})
    model = build(config, seed=0)
    model.llm.to(dtype)
    return model


@pytest.mark.parametrize(
    ("name", "trainable", "llm"),
    [
        ("vicuna7b", 188_837_376, 6_738_423_808),
        ("vicuna13b", 189_624_832, None),
        ("flant5xl", 187_262_464, None),
        ("flant5xxl", 188_837_376, None),
    ],
)
def test_full_size_parameters_are_the_papers(name: str, trainable: int, llm: int | None) -> None:
    """PAPER A.6, which counts the last text feed-forward that cannot learn."""
    counted = parameters(skeleton(full(name).model))
    unread = 4_723_968
    assert counted["qformer"].frozen == unread
    assert counted["qformer"].trainable == 185_660_160 - unread
    assert counted["vision"].trainable == counted["llm"].trainable == 0
    assert sum(part.trainable for part in counted.values()) + unread == trainable
    assert llm is None or counted["llm"].frozen == llm


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_state_is_what_a_real_step_leaves(precision: torch.dtype) -> None:
    model = reduced("tiny_llama", 2, precision)
    held = {"vision": torch.float32, "llm": precision}
    bytes_ = state(model, Setting("single", 1, 4), held)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    made = optimizer(model.named_parameters(), composed("train", "experiment=miniature/scratch").optim)
    made.step()
    moments = sum(t.nbytes for held_state in made.state.values() for t in held_state.values())
    assert bytes_["optimizer"] == moments
    assert bytes_["gradients"] == sum(p.grad.nbytes for p in trainable if p.grad is not None)
    weights = sum(value for part, value in bytes_.items() if part.startswith("weights"))
    assert weights == sum(parameter.nbytes for parameter in model.parameters())
    assert bytes_["gathered or reduced"] == 0


def test_ddp_holds_buckets_and_fsdp_shards() -> None:
    model, held = skeleton(full("vicuna7b").model), {"vision": torch.float32, "llm": torch.float16}
    alone, ddp, fsdp = (state(model, Setting(s, n, 4), held) for s, n in (("single", 1), ("ddp", 8), ("fsdp", 8)))
    assert ddp["gathered or reduced"] == ddp["gradients"] == alone["gradients"] == 4 * 184_113_408
    for part in ("weights of llm", "weights of vision", "gradients"):
        assert fsdp[part] == alone[part] / 8
    assert 0 < fsdp["gathered or reduced"] < alone["weights of llm"] / 10


@pytest.mark.parametrize("layers", [2, 3])
def test_activations_of_a_causal_model_are_what_autograd_keeps(layers: int) -> None:
    model = reduced("tiny_llama", layers, torch.bfloat16)
    length = 8 + PROMPT + RESPONSE
    embeds = torch.zeros(ROWS, length, 128, requires_grad=True, dtype=torch.bfloat16)
    mask = torch.ones(ROWS, length, dtype=torch.long)
    mask[0, -1] = 0  # a padded row, so that a mask is built
    hidden = kept(model, lambda: model.llm.model.model(inputs_embeds=embeds, attention_mask=mask)[0], torch.bfloat16)
    assert causal_layers(model, ROWS, Texts(PROMPT, RESPONSE), 2).kept == pytest.approx(hidden, rel=0.02)


@pytest.mark.parametrize("layers", [2, 3])
def test_activations_of_t5_are_what_autograd_keeps(layers: int) -> None:
    model = reduced("tiny_t5", layers, torch.bfloat16)
    embeds = torch.zeros(ROWS, 8 + PROMPT, 128, requires_grad=True, dtype=torch.bfloat16)
    mask = torch.ones(ROWS, 8 + PROMPT, dtype=torch.long)
    labels = torch.full((ROWS, RESPONSE), 5)
    whole = kept(model, lambda: model.llm.token_nll(embeds, mask, labels), torch.bfloat16)
    logits = ROWS * RESPONSE * 1000 * 4
    # The first attention of the decoder keeps nothing: what it reads is frozen.
    assert t5_layers(model, ROWS, Texts(PROMPT, RESPONSE), 2).kept == pytest.approx(whole - logits, rel=0.12)


def test_activations_of_the_qformer_are_what_autograd_keeps() -> None:
    model = reduced("tiny_llama", 1, torch.bfloat16)
    seen, ids = torch.zeros(ROWS, 10, 64), torch.ones(ROWS, 22, dtype=torch.long)

    def run() -> Tensor:
        return model.language_projection(model.qformer(model.query_tokens, model.ln_vision(seen), ids, ids))

    assert qformer_kept(model, ROWS, 22, 2) == pytest.approx(kept(model, run, torch.bfloat16), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_frozen_weights_of_another_dtype_are_kept_twice(dtype: torch.dtype) -> None:
    """The casts of autocast are saved for backward: a reason to hold the language model in bf16."""
    embeds = torch.zeros(ROWS, 20, 128, requires_grad=True, dtype=dtype)
    mask, labels = torch.ones(ROWS, 20, dtype=torch.long), torch.full((ROWS, 12), 5)
    wide, narrow = (reduced("tiny_llama", 2, each) for each in (dtype, torch.bfloat16))
    more = kept(wide, lambda: wide.llm.token_nll(embeds, mask, labels), torch.bfloat16) - kept(
        narrow, lambda: narrow.llm.token_nll(embeds.bfloat16(), mask, labels), torch.bfloat16
    )
    linear = sum(m.weight.numel() for m in wide.llm.modules() if isinstance(m, torch.nn.Linear))
    assert more == pytest.approx(2 * linear, rel=0.01)
    texts, setting = Texts(20, 12), Setting("single", 1, ROWS)
    reckoned = [
        working(wide, setting, {"vision": torch.float32, "llm": each}, texts)["casts of the language model"]
        for each in (dtype, torch.bfloat16)
    ]
    assert reckoned == [2 * linear, 0]


@pytest.mark.parametrize("name", list(paper.PUBLISHED))
def test_the_four_experiments_equal_the_paper(name: str) -> None:
    assert [row.name for row in paper.comparison(full(name)) if not row.equal] == []


def test_what_differs_from_the_paper_is_found() -> None:
    config = full("vicuna7b", "batch_size=64", "optim.lr=2e-5", "mixture=no_web", "trainer.precision=fp32")
    assert {row.name for row in paper.comparison(config) if not row.equal} == {
        "global batch", "learning rate", "mixture", "precision",
    }  # fmt: skip
    assert paper.comparison(full("miniature/scratch")) == []


def test_proposals_fit_or_say_what_is_missing() -> None:
    config = full("vicuna7b")
    model = skeleton(config.model)
    wide, narrow, hopeless = (proposed(model, config, *asked) for asked in ((16, 80e9), (8, 48e9), (1, 8e9)))
    assert wide.setting.strategy == "ddp" and not wide.setting.checkpointing and not wide.short
    assert narrow.peak.total <= 48e9 and 128 // 8 % narrow.setting.micro_batch_size == 0
    assert hopeless.short == pytest.approx(hopeless.peak.total - 8e9) and hopeless.setting.checkpointing
    assert proposed(model, config, 16, narrow.peak.total - 1).peak.total < narrow.peak.total
    with pytest.raises(ValueError, match=r"plan\.gpus=200"):
        proposed(model, config, 200, 40e9)


@pytest.mark.parametrize("name", ["vicuna7b", "flant5xl", "miniature/scratch"])
def test_the_page_is_whole_without_weights(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(full(name, "plan.gpus=8", "plan.memory_gb=40"))
    printed = capsys.readouterr().out
    for said in ("parameters", "peak", "hours at MFU 40%", "missing:", "8 GPUs of 40 GB", "assumption"):
        assert said in printed
    assert ("beside the paper" in printed) is (name != "miniature/scratch")


def test_an_unknown_size_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show(full("vicuna7b", "model/llm=qwen3_8b"))
    assert "Qwen3-8B/config.json, which is not there" in capsys.readouterr().out.replace("\n", "")


def test_mean_texts_come_from_prepared_tables(tiny: Callable[..., TrainConfig], capsys: Any) -> None:
    show(tiny())
    printed = capsys.readouterr().out
    assert "estimates" not in printed and "nothing is missing" in printed


def test_the_benchmark_of_memory_takes_a_step_anywhere() -> None:
    config = composed("train", "experiment=miniature/scratch", "trainer.micro_batch_size=2")
    config.model.unfreeze = []
    device = torch.device("cpu")
    for llm in ("tiny_llama", "tiny_t5"):
        config.model.llm = composed("train", "experiment=miniature/scratch", f"model={llm}").model.llm
        model = memory.drawn(config, device)
        assert not any(parameter.is_meta for parameter in model.parameters())
        memory.stepped(model, config, Texts(6, 4), device)
    assert [line for line in memory.report(config) if "predicted" in line]
