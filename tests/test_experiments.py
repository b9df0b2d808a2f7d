"""Every experiment: the paper's numbers, ablations that change what they name, and what of the stream each changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from instructblip import recipes
from instructblip.choices import Purpose, Wording
from instructblip.cli import NEEDS_A_BASE, run_name
from instructblip.config.training import TrainConfig
from instructblip.data.lineage import refuse_leaks
from instructblip.data.shares import members, shares
from instructblip.data.steps import Reader, stream_hash
from instructblip.data.templates import wordings
from instructblip.recipes import plain
from instructblip.training.datamodule import training_set
from tests.conftest import ROOT, composed

Tiny = Callable[..., TrainConfig]
FOLDER = ROOT / "conf/experiment"
NAMES = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in sorted(FOLDER.rglob("*.yaml"))]
ABLATIONS = [name for name in NAMES if name.startswith("ablation/")]
FINETUNED = [name for name in NAMES if name.startswith("finetune/")]
PUBLISHED = [name for name in NAMES if name.startswith(("released/", "baseline/"))]
assert len(ABLATIONS) >= 20 and len(FINETUNED) == 5 and len(PUBLISHED) == 8 and len(NAMES) > 40

PAPER = {  # PAPER C.1 to C.5, the same for the four models
    "steps": 60_000, "seed": 42, "optim.schedule": "cosine", "optim.inner_epoch": 3000, "optim.lr": 1e-5,
    "optim.warmup_lr": 1e-8, "optim.min_lr": 0.0, "optim.warmup_steps": 1000, "optim.betas": [0.9, 0.999],
    "optim.weight_decay": 0.05, "optim.clip_norm": None, "trainer.precision": "bf16-mixed",
    "loss.reduction": "group", "loss.group_size": None, "purpose": "instruction_tune", "allow_leak": False,
    "mixture.name": "paper", "mixture.recipes": "held_in", "mixture.weighting": "sqrt", "mixture.draw": "random",
    "wording.style": "instructions", "wording.keep": {}, "per_image": 1,
    "transforms.crop_scale": [0.5, 1.0], "transforms.flip": 0.5, "transforms.rand_augment_level": 5,
    "model.vision.image_size": 224, "model.vision.mean": [0.48145466, 0.4578275, 0.40821073],
    "model.vision.std": [0.26862954, 0.26130258, 0.27577711],
    "model.vision.config": {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39,
                            "num_attention_heads": 16, "patch_size": 14, "qkv_bias": True},
    "model.qformer.instruction_aware": True, "model.qformer.num_query_tokens": 32, "model.qformer.hidden_size": 768,
    "model.qformer.num_hidden_layers": 12, "model.qformer.cross_attention_frequency": 2,
    "model.qformer.vocab_size": 30523, "model.qformer.max_length": 128, "model.qformer.hidden_dropout_prob": 0.1,
    "model.llm.max_prompt_length": 128, "model.llm.max_response_length": 256, "model.llm.prompt_format": "raw",
    "model.init": "blip2", "model.random_init": False, "model.ln_vision_eps": 1e-5, "model.freeze_ln_vision": False,
    "model.unfreeze": [], "model.lora.targets": [],
}  # fmt: skip
OF_MODELS = {  # PAPER C.1 (batch on 16 GPUs), C.4 (RandAugment), A.5 (language models)
    "flant5xl": {"batch_size": 192, "group_size": 12, "transforms.rand_augment": 2, "model.llm.type": "t5",
                 "model.llm.config.d_model": 2048, "model.llm.config.dense_act_fn": "gelu"},
    "flant5xxl": {"batch_size": 64, "group_size": 4, "transforms.rand_augment": 2, "model.llm.type": "t5",
                  "model.llm.config.d_model": 4096, "model.llm.config.dense_act_fn": "gelu"},
    "vicuna7b": {"batch_size": 128, "group_size": 8, "transforms.rand_augment": 0, "model.llm.type": "llama",
                 "model.llm.config.hidden_size": 4096, "model.llm.config.num_hidden_layers": 32,
                 "model.llm.bos_token": "</s>", "model.llm.config.pad_token_id": 32000},
    "vicuna13b": {"batch_size": 64, "group_size": 4, "transforms.rand_augment": 0, "model.llm.type": "llama",
                  "model.llm.config.hidden_size": 5120, "model.llm.config.num_hidden_layers": 40,
                  "model.llm.bos_token": "</s>", "model.llm.config.pad_token_id": 32000},
}  # fmt: skip
SAME, ORDER, WORDS, DATASETS = "nothing", "the order of the datasets", "the wordings", "which datasets there are"
CHANGES = {  # what of the stream an ablation changes; everything not named here must stay
    "ablation/no_balancing": ORDER, "ablation/one_template": WORDS,
    **{name: DATASETS for name in ABLATIONS if name.startswith("ablation/without_")},
}  # fmt: skip


@cache
def experiment(name: str, base: str = "vicuna7b") -> TrainConfig:
    """The experiment as Hydra composes it; one without defaults is laid over its base, which is what Hydra does."""
    if name.startswith(NEEDS_A_BASE) and "defaults" not in written(name):
        laid = OmegaConf.merge(OmegaConf.structured(experiment(base)), OmegaConf.create(written(name)))
        config = OmegaConf.to_object(laid)
    else:
        config = composed("train", f"experiment={chosen(name, base)}")
    assert isinstance(config, TrainConfig)
    return config


def chosen(name: str, base: str = "vicuna7b") -> str:
    return f"[{base},{name}]" if name.startswith(NEEDS_A_BASE) else name


def settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its dotted name, with the dictionaries of settings taken apart."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        flat[path] = value
        for key, item in value.items() if isinstance(value, dict) else ():
            walk(item, f"{path}.{key}")

    for field in fields(config):
        walk(plain(getattr(config, field.name)), field.name)
    return flat


def written(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return content


@pytest.mark.parametrize("name", ["ablation/queries_16", "multitask/plain"])
def test_laying_over_is_composing(name: str) -> None:
    assert experiment(name) == composed("train", f"experiment={chosen(name)}")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_composes_and_says_what_it_is(name: str) -> None:
    config = experiment(name)
    assert isinstance(config, TrainConfig) and config.batch_size % config.group_size == 0
    head, why = (FOLDER / f"{name}.yaml").read_text().splitlines()[:2]
    assert head == "# @package _global_" and why.startswith("# ") and len(why) > 30


@pytest.mark.parametrize("name", OF_MODELS)
def test_the_four_models_have_the_papers_numbers(name: str) -> None:
    found = settings(experiment(name))
    wanted = {**PAPER, **OF_MODELS[name], "model.name": name}
    assert {key: found[key] for key in wanted} == wanted
    assert "2305.06500v2, section 2.6" in (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_a_short_diff_of_what_it_names(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert 3 <= len(lines) <= 6 and "defaults" not in written(name)
    base, ablated = settings(experiment("vicuna7b")), settings(experiment(name))
    changed = {key for key in ablated if key not in base or base[key] != ablated[key]}
    named: set[str] = set()

    def walk(value: Any, path: str) -> None:
        named.add(path)
        for key, item in value.items() if isinstance(value, dict) else ():
            walk(item, f"{path}.{key}" if path else key)

    walk(written(name), "")
    assert changed and changed <= named
    leaves = {key for key in named if key and not isinstance(ablated[key], dict)}
    assert leaves <= changed, f"{leaves - changed} are as they were"


def stream(config: TrainConfig) -> tuple[str, dict[str, list[tuple[str, int]]], dict[str, list[str]], list[str]]:
    """The hash of the run directory; of each dataset its samples with their crops, and its wordings; and their order."""
    data = training_set(config)
    media, size = Path(config.paths.data) / "media", config.model.vision.image_size
    reader = Reader(data.stream, data.recipes, data.tables, data.wordings, media, config.transforms, size)
    samples: dict[str, list[tuple[str, int]]] = {}
    words: dict[str, list[str]] = {}
    order = []
    for pick in (pick for step in range(config.steps) for pick in reader.stream.step(step)):
        example = reader.example(pick)
        samples.setdefault(example.recipe, []).append((example.uid, pick.augmentation))
        words.setdefault(example.recipe, []).append(example.template)
        order.append(example.recipe)
    return stream_hash(reader, 0, config.steps), samples, words, order


def test_an_ablation_sees_the_same_stream_but_where_it_acts(tiny: Tiny) -> None:
    small = tiny("steps=20")
    digest, samples, words, order = stream(small)
    for name in (name for name in ABLATIONS if CHANGES.get(name) is not DATASETS):
        own = {part: value for part, value in written(name).items() if part != "model"}
        laid = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(small), OmegaConf.create(own)))
        assert isinstance(laid, TrainConfig)
        changed, what = stream(laid), CHANGES.get(name, SAME)
        assert (changed[0] == digest) == (what is SAME), f"{name} changes {what}"
        assert (changed[3] == order) == (what is not ORDER), name
        for recipe in samples:
            both = min(len(samples[recipe]), len(changed[1][recipe]))
            assert both and changed[1][recipe][:both] == samples[recipe][:both], name
            assert (changed[2][recipe][:both] == words[recipe][:both]) == (what is not WORDS), name


def test_leaving_a_task_out_leaves_the_samples_of_the_others(tiny: Tiny) -> None:
    whole, config = stream(tiny("steps=20")), tiny("steps=20", "mixture.without=[image captioning]")
    _, samples, words, order = stream(config)
    assert set(order) == {"vqav2"}
    both = len(whole[1]["vqav2"])
    assert samples["vqav2"][:both] == whole[1]["vqav2"] and words["vqav2"][:both] == whole[2]["vqav2"]


def test_every_held_in_task_can_be_left_out() -> None:
    whole = experiment("vicuna7b")
    everything, _ = members(whole.mixture, whole.partition.groups())
    left_out = {}
    for name in (name for name in ABLATIONS if CHANGES.get(name) is DATASETS):
        config = experiment(name)
        left, _ = members(config.mixture, config.partition.groups())
        assert sum(share.probability for share in shares(left, config.mixture)) == pytest.approx(1)
        (task,) = {recipe.task for recipe in everything} - {recipe.task for recipe in left}
        left_out[task] = name
    assert set(left_out) == {recipe.task for recipe in everything} and len(left_out) == 7


@pytest.mark.parametrize(
    ("without", "said"),
    [(["image captionin"], "did you mean 'image captioning'"), (["visual reasoning"], "unknown task"),
     (["image captioning", "image question answering"], "leaves nothing of mixture scratch")],
)  # fmt: skip
def test_a_task_that_cannot_be_left_out_is_refused(tiny: Tiny, without: list[str], said: str) -> None:
    config = tiny()
    config.mixture.without = without
    with pytest.raises(ValueError, match=said):
        training_set(config)


def test_the_multitask_baselines_differ_from_instruction_tuning_by_wording_and_q_former() -> None:
    base = settings(experiment("flant5xl"))
    for style in (Wording.plain, Wording.dataset_names):
        found = settings(experiment(f"multitask/{style.value}", "flant5xl"))
        leaves = {key: value for key, value in found.items() if not isinstance(value, dict) and base[key] != value}
        assert leaves == {"wording.style": style.value, "model.qformer.instruction_aware": False}


@pytest.mark.parametrize("name", FINETUNED)
def test_finetuning_trains_on_one_dataset_that_may_be(name: str) -> None:
    for base in ("vicuna7b", "flant5xxl") if name == "finetune/okvqa" else ("vicuna7b",):
        config = experiment(name, base)
        (recipe,), _ = members(config.mixture, config.partition.groups())
        assert config.model.name == base and name.split("/")[1].startswith(recipe.name)
        assert config.purpose is Purpose.finetune and not config.mixture.factors and not config.mixture.complete
        refuse_leaks([recipe], config.partition, config.purpose, False, config.mixture.splits)
        split = recipe.training_split(config.mixture.splits)
        assert wordings(recipe, split, config.wording) and shares([recipe], config.mixture)[0].probability == 1
    grid = written(name)["hydra"]["sweeper"]["params"]
    rates, lengths = grid["optim.lr"].split(","), grid["steps"].split(",")
    assert len(set(rates)) == 3 and len(set(lengths)) == 2 and config.steps == int(lengths[0])
    assert all(float(rate) > 0 for rate in rates) and "ours" in (FOLDER / f"{name}.yaml").read_text()


def test_a_science_question_is_learnt_as_it_is_asked() -> None:
    science = recipes.load("scienceqa")
    (template,) = wordings(science, "train", experiment("finetune/scienceqa").wording)
    assert template.text == science.protocol("paper").prompts["paper"]


@pytest.mark.parametrize("start", ["blip2", "instructblip", "instructblip_hf"])
@pytest.mark.parametrize("model", OF_MODELS)
def test_every_start_is_a_name_of_the_model(model: str, start: str) -> None:
    group = yaml.safe_load((ROOT / f"conf/init/{start}.yaml").read_text())
    assert group["init"] == start and start in experiment(model).model.starts
    assert (group.get("llm") == {"weights": None}) == (start == "instructblip_hf")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_not_trained(name: str) -> None:
    config = experiment(name)
    config.experiment = [name]
    assert config.purpose is Purpose.evaluate and config.steps == 0
    assert run_name(config, overridden=False) == name.split("/")[1]
    blip2 = name.startswith("baseline/")
    assert config.model.qformer.instruction_aware != blip2 and (config.mixture.recipes == []) == blip2
    assert (config.model.init == "instructblip") != blip2


def test_pilots_are_the_paper_without_web_captions_in_6k_steps() -> None:
    pilots = [name for name in NAMES if name.startswith("pilot/")]
    assert len(pilots) == 3
    for name in pilots:
        config = experiment(name)
        assert (config.mixture.name, config.steps) == ("no_web", 6000)
        assert config.optim.lr == PAPER["optim.lr"] and config.model.qformer.num_query_tokens == 32
    assert json.dumps(plain(experiment("pilot/flant5base").model)).count("flan-t5-base") == 2
