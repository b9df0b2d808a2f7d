"""What the programs share: Hydra composes, refuses what is misspelt, and hands over plain dataclasses.

Nothing heavy is imported here, so that help and a refusal come at once. Exit codes: 0 done, 1 failed, 2 refused.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the one `except` below instead of Hydra's own exit
import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from instructblip import sweep
from instructblip.choices import Purpose, Resume
from instructblip.config.schemas import SCHEMAS
from instructblip.config.training import TrainConfig
from instructblip.names import did_you_mean, require
from instructblip.recipes import fingerprint

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
REFUSED = 2
NEEDS_A_BASE = (
    "ablation/",
    "multitask/",
    "align/",
    "finetune/",
    "control/",
    "family/",
    "miniature/vision",
    "miniature/backbone_t5",
)  # experiments that change another one and name no base of their own
NOT_MEANINGFUL = (
    "experiment", "seed", "name", "resume", "allow_change", "dry_run", "selfcheck", "plan", "paths", "trainer",
    "logger", "hydra",
)  # fmt: skip


def program(name: str) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Turns `main(config)` into a program over `conf/<name>.yaml`, called without arguments."""

    def wrap(body: Callable[[Any], None]) -> Callable[[], None]:
        composed: list[Any] = []

        def job(cfg: DictConfig) -> None:
            chosen = HydraConfig.get()
            config = _typed(cfg, chosen)
            if chosen.mode is not RunMode.MULTIRUN:
                composed.append(config)
            elif os.environ.get("SLURM_PROCID", "0") == "0":  # other ranks of the same job leave its record alone
                one = sweep.Job(chosen.job.num, _label(config, chosen))
                sweep.kept(Path(chosen.sweep.dir), one, partial(body, config), _place(config, chosen), _told)
            else:
                body(config)

        def run() -> None:
            try:
                refuse_misspelt(name, sys.argv[1:])
                ConfigStore.instance().store(name=f"{name}_schema", node=SCHEMAS[name])
                composing = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)
                if {"-m", "--multirun"} & set(sys.argv[1:]):
                    return _sweep(name, composing)
                composing()
                for config in composed:
                    body(config)
            except Exception as error:
                if (message := _told(error)) is None:
                    raise
                print(f"{name}.py: {message}", file=sys.stderr)
                sys.exit(REFUSED)

        return run

    return wrap


def composed(name: str, *overrides: str) -> Any:
    """The config as the program `name` would get it from these arguments; a run gets no name."""
    ConfigStore.instance().store(name=f"{name}_schema", node=SCHEMAS[name])
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return OmegaConf.to_object(compose(config_name=name, overrides=list(overrides)))


def _sweep(name: str, launch: Callable[[], None]) -> None:
    """Composes every job before the first one begins, launches them, and ends with the table of all; exits 1 unless
    all went well."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        overrides = _jobs(name, [text for text in sys.argv[1:] if "=" in text])
    place = fingerprint([name, [[each for each in job if not each.startswith("hydra")] for job in overrides]])
    sys.argv.append(f"hydra.sweep.dir=${{paths.runs}}/.sweeps/{place}")
    jobs = []
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        for number, each in enumerate(overrides):
            cfg = compose(config_name=name, overrides=[*each, sys.argv[-1]], return_hydra_config=True)
            cfg.hydra.job.num, chosen = number, cfg.hydra
            folder = Path(chosen.sweep.dir)
            del cfg.hydra
            jobs.append(sweep.Job(number, _label(_typed(cfg, chosen), chosen)))
    sweep.begin(folder, jobs)
    try:
        launch()
    except Exception as error:  # a launcher's own; what befalls a job is in its record
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sweep.await_queue(folder)
    finally:
        well = sweep.end(folder, jobs)
    if not well:
        sys.exit(1)


def _jobs(name: str, arguments: list[str]) -> list[list[str]]:
    """The overrides of each job: of the command line, and of what the chosen experiment has under hydra.sweeper."""
    parser = OverridesParser.create()
    fixed = [text for text in arguments if not parser.parse_override(text).is_sweep_override()]
    params = compose(config_name=name, overrides=fixed, return_hydra_config=True).hydra.sweeper.params or {}
    swept = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *arguments])
    return [list(job) for job in BasicSweeper.split_arguments(swept, None)[0]]


def _typed(cfg: DictConfig, chosen: Any) -> Any:
    """The config as dataclasses; a run gets its name. Jobs of a sweep go on with what is there: requeued ones must."""
    config = OmegaConf.to_object(cfg)
    if isinstance(config, TrainConfig):
        overrides = OverridesParser.create().parse_overrides(list(chosen.overrides.task))
        _name(config, overrides, chosen)
        if chosen.mode is RunMode.MULTIRUN and "resume" not in {each.key_or_group for each in overrides}:
            config.resume = Resume.auto
    return config


def _label(config: Any, chosen: Any) -> str:
    return config.name if isinstance(config, TrainConfig) else " ".join(chosen.overrides.task)


def _place(config: Any, chosen: Any) -> AbstractContextManager[None]:
    """Jobs of `hydra/launcher=local` all start at once and take turns; others have their place already."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        return nullcontext()
    devices = config.trainer.devices if isinstance(config, TrainConfig) else 1
    return sweep.slot(Path(chosen.sweep.dir).parent, sweep.slots_here(devices), devices)


def refuse_misspelt(name: str, arguments: list[str]) -> None:
    """Raises ValueError for an override that names no key or group of `conf/<name>.yaml`, also behind + and ++.

    Hydra itself would accept `+typo=1`, and would find a typo only once a sweep has begun.
    """
    texts = [text for text in arguments if (not text.startswith("-") and "=" in text) or text.startswith("~")]
    schema = OmegaConf.structured(SCHEMAS[name])
    known = [*_keys(schema), *_groups()]
    for override in OverridesParser.create().parse_overrides(texts):
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            continue
        if override.is_delete():
            raise ValueError(f"~{key}: a key of the config cannot be deleted, only set")
        if key in _groups():
            for options in _values(override):
                _check_options(key, options)
        elif not _is_key(schema, key):
            raise ValueError(f"unknown key {key!r}{did_you_mean(key, known)}")


def run_name(config: TrainConfig, overridden: bool) -> str:
    """Experiment and seed; six digits of the config's hash when something that matters was overridden.

    A published model has no seed, and is called by the last part of its experiment.
    """
    names = [
        name.rsplit("/", 1)[-1] if number else name.replace("/", "-") for number, name in enumerate(config.experiment)
    ]
    meaningful = {key: value for key, value in vars(config).items() if key not in NOT_MEANINGFUL}
    suffix = f"-{fingerprint(meaningful)[:6]}" if overridden else ""
    if config.purpose is Purpose.evaluate:
        return f"{config.experiment[-1].rsplit('/', 1)[-1]}{suffix}"
    return f"{'+'.join(names)}-s{config.seed}{suffix}"


def _name(config: TrainConfig, overrides: list[Override], chosen: Any) -> None:
    given = [override for override in overrides if override.key_or_group == "experiment"]
    config.experiment = _as_list(given[-1].value() if given else chosen.runtime.choices["experiment"])
    if not config.name:
        heads = {override.key_or_group.replace("/", ".").split(".")[0] for override in overrides}
        config.name = run_name(config, overridden=bool(heads - set(NOT_MEANINGFUL)))
    if set("=,/ ") & set(config.name):
        raise ValueError(f"name={config.name!r}: a run's name holds no '=', ',', '/' or blank")


def _check_options(group: str, options: list[str]) -> None:
    files = (CONF / group).rglob("*.yaml") if group == "experiment" else (CONF / group).glob("*.yaml")
    known = [path.relative_to(CONF / group).with_suffix("").as_posix() for path in files]
    for option in options:
        require(option, known, group)
    if group == "experiment" and options and options[0].startswith(NEEDS_A_BASE):
        raise ValueError(
            f"{options[0]} changes another experiment: name that first, experiment=[miniature,{options[0]}]"
        )


def _values(override: Override) -> Iterator[list[str]]:
    """The option names of a group override, of each job of a sweep."""
    values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        yield _as_list(value)


def _as_list(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [item for part in value for item in _as_list(part)]
    text: str = value.text if isinstance(value, QuotedString) else str(value)
    return [part.strip(" '\"") for part in text.strip("[]").split(",")]


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(node, key) and isinstance(child := node[key], DictConfig):
            yield from _keys(child, f"{prefix}{key}.")


def _is_key(schema: DictConfig, key: str) -> bool:
    node: Any = schema
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return False
        if part not in node.keys():  # noqa: SIM118, `in` is False for a key whose value is still missing
            return OmegaConf.get_type(node) is dict
        if OmegaConf.is_missing(node, part) or node[part] is None:
            return True
        node = node[part]
    return True


def _groups() -> list[str]:
    """`model`, and `model/llm` within it; an experiment's folders are parts of its name."""
    folders = [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]
    return sorted(folder for folder in folders if not folder.startswith("experiment/"))


def _told(error: Exception) -> str | None:
    """The message of an error that is addressed to the user: Hydra's, or a ValueError raised by a line of ours."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _message(error)
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = last.is_relative_to(ROOT / "instructblip") or last.parent == ROOT
    return _message(error) if isinstance(error, ValueError) and ours else None


def _message(error: BaseException) -> str:
    """Hydra's and OmegaConf's words without their advice to add unknown keys, and the cause where they hide it."""
    while isinstance(error, HydraException) and error.__cause__:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("To append", "reference_type", "object_type"))]
    if "is not in struct" in lines[0]:  # a misspelt key was refused before; this one is below a dictionary
        key = next((line.split()[1] for line in kept if line.startswith("full_key:")), "mixture.factors.okvqa")
        kept.append(f"a new entry of a dictionary is written with a plus: +{key}=...")
    return "\n  ".join(kept)
