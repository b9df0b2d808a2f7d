"""The arms of the embedded world's study: each the same training as instruction tuning but for what it is named after."""

from __future__ import annotations

import pytest

from tests.test_experiments import experiment, settings

BASE = "miniature"
ARMS = {  # what an arm may change: a setting, or all below it
    "control/captions": ("mixture",),
    "control/queries_32": ("model.resize_queries", "model.qformer.num_query_tokens"),
    "ablation/queries_4": ("model.resize_queries", "model.qformer.num_query_tokens"),
    "ablation/queries_8": ("model.resize_queries", "model.qformer.num_query_tokens"),
    "ablation/no_instruction_aware": ("model.qformer.instruction_aware",),
    "ablation/no_balancing": ("mixture.weighting",),
    "multitask/plain": ("wording.style", "model.qformer.instruction_aware"),
    "multitask/dataset_names": ("wording.style", "model.qformer.instruction_aware"),
    "family/t5": ("model.name", "model.llm", "model.init"),
}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_changes_what_it_is_named_after_and_nothing_else(name: str) -> None:
    base, arm = settings(experiment(BASE)), settings(experiment(name, BASE))
    changed = {key for key in arm.keys() | base.keys() if arm.get(key) != base.get(key)}
    leaves = {key for key in changed if not isinstance(arm.get(key, base.get(key)), dict)}
    assert leaves and all(key in ARMS[name] or key.startswith(tuple(f"{own}." for own in ARMS[name])) for key in leaves)
    for same in (
        "steps",
        "batch_size",
        "group_size",
        "per_image",
        "optim",
        "loss",
        "transforms",
        "trainer",
        "objective",
    ):
        assert arm[same] == base[same]


def test_captions_are_a_control_for_training_on_captions_alone() -> None:
    captions = experiment("control/captions", BASE)
    assert captions.mixture.recipes == ["coco_caption", "web_capfilt"] and captions.model.qformer.instruction_aware


def test_the_backbone_is_not_trained() -> None:
    backbone = experiment("control/backbone", BASE)
    assert backbone.purpose.value == "evaluate" and backbone.mixture.recipes == []
    assert backbone.model.init == experiment(BASE).model.init
