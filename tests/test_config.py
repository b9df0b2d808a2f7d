"""The config is closed: everything declared composes and is read, everything else is refused at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from instructblip.cli import refuse_misspelt, run_name
from instructblip.config.schemas import SCHEMAS
from instructblip.config.training import TrainConfig
from tests.conftest import ROOT, composed, run_program

OPTIONS = [
    (path.parent.relative_to(ROOT / "conf").as_posix(), path) for path in sorted((ROOT / "conf").rglob("*/*.yaml"))
]
assert len(OPTIONS) > 10


@pytest.mark.parametrize(("group", "path"), [option for option in OPTIONS if "experiment" not in option[0]])
def test_every_option_composes(group: str, path: Path) -> None:
    base = ["model=vicuna7b"] if "/" in group else []
    refuse_misspelt("train", [*base, f"{group}={path.stem}"])
    assert isinstance(composed("train", *base, f"{group}={path.stem}"), TrainConfig)


@pytest.mark.parametrize("name", ["prepare", "evaluate", "report", "demo"])
def test_every_program_composes(name: str) -> None:
    missing = {"prepare": ["recipe=vsr"], "evaluate": ["recipe=vsr", "run=x"], "report": [], "demo": []}[name]
    assert isinstance(composed(name, *missing), SCHEMAS[name])


def test_every_field_is_read_somewhere() -> None:
    source = "\n".join(path.read_text() for path in [*ROOT.glob("*.py"), *(ROOT / "instructblip").rglob("*.py")])
    fields = {
        field.name for schema in SCHEMAS.values() for kind in _dataclasses(schema) for field in dataclasses.fields(kind)
    }
    unread = [name for name in sorted(fields) if not re.search(rf"\.{name}\b", source)]
    assert not unread, f"nothing reads {unread}"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["optim.lrr=1"], "optim.lr"),
        (["lr=1"], "optim.lr"),
        (["+optim.lrr=1"], "optim.lr"),
        (["++batch_siz=1"], "batch_size"),
        (["-m", "seed=1,2", "+bacth_size=3"], "batch_size"),
        (["experiment=vicuna7"], "vicuna7b"),
        (["experiment=no_balancing"], "ablation/no_balancing"),
        (["experiment=ablation/no_balancing"], "experiment=[miniature,ablation/no_balancing]"),
        (["experiment=finetune/okvqa"], "experiment=[miniature,finetune/okvqa]"),
        (["experiment=multitask/plain"], "experiment=[miniature,multitask/plain]"),
        (["-m", "experiment=[miniature,ablation/no_balancing],ablation/no_balancing"], "experiment=[miniature,"),
        (["-m", "experiment=[miniature,ablation/no_balancin],miniature"], "ablation/no_balancing"),
        (["model=tiny_lama"], "tiny_llama"),
        (["model=vicuna7b", "model/llm=qwen3_8"], "qwen3_8b"),
        (["model/lm=qwen3_8b"], "model/llm"),
        (["~optim.lr"], "cannot be deleted"),
    ],
)
def test_misspelt_is_refused_with_the_nearest(arguments: list[str], hint: str) -> None:
    with pytest.raises(ValueError) as refused:
        refuse_misspelt("train", arguments)
    assert hint in str(refused.value)
    assert not re.search(r"\+\w", str(refused.value)), "the advice must not be to add the key"


@pytest.mark.parametrize(
    "arguments", [["steps=3"], ["+mixture.factors.okvqa=2"], ["model.llm.config.x=1"], ["hydra.verbose=true"]]
)
def test_real_keys_pass(arguments: list[str]) -> None:
    refuse_misspelt("train", arguments)


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("train.py", ["optim.lr=fast"], "optim.lr"),
        ("train.py", ["+model._target_=os.system"], "unknown key 'model._target_'"),
        ("train.py", ["trainer.precision=fp17"], "expected one of [fp32, bf16, fp16]"),
        ("evaluate.py", ["recipe=vsr"], "run"),
        ("demo.py", ["prot=1"], "did you mean 'port'?"),
    ],
)
def test_refusal_comes_before_anything_heavy(program: str, arguments: list[str], said: str) -> None:
    done = run_program("-X", "importtime", program, *arguments)
    assert done.returncode == 2
    message = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert said in "\n".join(message) and "Traceback" not in done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "omegaconf" in imported and not imported & {"torch", "transformers", "lightning", "datasets"}


def test_help_imports_nothing_heavy() -> None:
    done = run_program("-X", "importtime", "train.py", "--help")
    assert done.returncode == 0 and "experiment" in done.stdout
    assert "| torch\n" not in done.stderr


def test_a_bad_sweep_is_refused_before_its_first_job(tmp_path: Path) -> None:
    done = run_program("train.py", "-m", "dry_run=true", "seed=1,two", f"paths.runs={tmp_path}/runs")
    assert done.returncode == 2 and "missing" not in done.stdout


def test_the_name_of_a_run() -> None:
    config = composed("train", "experiment=miniature/scratch")
    config.experiment = ["vicuna7b", "ablation/no_balancing"]
    assert run_name(config, overridden=False) == "vicuna7b+no_balancing-s42"
    named = run_name(config, overridden=True)
    config.trainer.micro_batch_size += 1
    assert run_name(config, overridden=True) == named, "where a run is executed is not part of its name"
    config.optim.lr *= 2
    assert run_name(config, overridden=True) != named


def _dataclasses(kind: type) -> set[type]:
    """The dataclass and those of its fields, as the config nests them."""
    nested = {type(value) for value in vars(kind()).values() if dataclasses.is_dataclass(value)}
    return {kind}.union(*(_dataclasses(child) for child in nested)) if nested else {kind}


def test_resolved_configs_survive_a_file(tmp_path: Path) -> None:
    config = composed("train", "experiment=vicuna7b", "paths.weights=w")
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(tmp_path / "config.yaml"))
    assert OmegaConf.to_object(merged) == config
