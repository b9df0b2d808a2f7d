"""TensorBoard's files read back, and what W&B is told; both across a resume."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from instructblip.config.training import TrainConfig
from instructblip.training import loggers as module
from instructblip.training.loggers import close, log_text, loggers, run_id
from tests.conftest import composed
from tests.training.test_training import logged, train

Tiny = Callable[..., TrainConfig]


def events(folder: Path) -> list[Event]:
    """Of all files, in the order of their writing: a record is its length, a checksum, the event, a checksum."""
    found = []
    for path in sorted(folder.glob("events.out.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    values = [(event.step, value) for event in events(folder) for value in event.summary.value]
    return [(step, value.simple_value) for step, value in values if value.tag == tag]


def test_tensorboard_holds_what_the_metrics_file_holds(tiny: Tiny) -> None:
    run = train(tiny("logger=tensorboard"))
    found = scalars(run / "tensorboard", "train/loss")
    assert [step for step, _ in found] == [1, 2, 3, 4]
    assert [value for _, value in found] == pytest.approx(logged(run, "train/loss"))
    tags = {value.tag for event in events(run / "tensorboard") for value in event.summary.value}
    assert {"train/lr", "train/loss/vqav2", "train/gradient_share/coco_caption", "speed/data_wait"} <= tags


def test_redone_steps_are_purged_and_texts_keep_their_table(tiny: Tiny, tmp_path: Path) -> None:
    for first in (0, 2):
        (logger,) = loggers(tiny("logger=tensorboard"), tmp_path, first)
        logger.log_metrics({"train/loss": 1.0}, step=first + 1)
        log_text(logger, "samples", [{"question": "a|b\nc", "answer": "d"}], step=first + 1)
        close(logger, failed=False)
    starts = [event.step for event in events(tmp_path / "tensorboard") if event.session_log.status == SessionLog.START]
    assert starts == [1, 3]
    texts = [
        v for event in events(tmp_path / "tensorboard") for v in event.summary.value if v.tag.startswith("samples")
    ]
    assert texts[0].tensor.string_val[0].decode().splitlines() == [
        "| question | answer |", "| --- | --- |", "| a\\|b c | d |"
    ]  # fmt: skip


def test_wandb_is_the_same_run_after_a_resume(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "WandbLogger", lambda **settings: told.append(settings))
    config = tiny("logger=wandb", "logger.tags=[try]")
    config.experiment = ["vicuna7b", "ablation/x"]
    for run in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        run.mkdir(exist_ok=True)
        loggers(config, run, first=0)
    assert told[0] == told[1] and told[0]["id"] == run_id(tmp_path / "a") != told[2]["id"]
    assert (told[0]["group"], told[0]["job_type"], told[0]["offline"]) == ("vicuna7b+ablation/x", "train", True)
    assert told[0]["tags"] == ["vicuna7b", "ablation/x", "scratch", "try"]
    assert told[0]["config"]["optim"]["lr"] == config.optim.lr
    config.logger.group = "sweep7"
    loggers(config, tmp_path / "a", first=0)
    assert told[-1]["group"] == "sweep7"


@pytest.mark.parametrize(
    ("chosen", "tensorboard", "wandb"),
    [
        ("csv", False, False),
        ("[wandb,csv]", False, True),
        ("[csv,tensorboard]", True, False),
        ("[tensorboard,wandb]", True, True),
    ],
)
def test_loggers_are_chosen_one_or_several(chosen: str, tensorboard: bool, wandb: bool) -> None:
    made = composed("train", "experiment=miniature/scratch", f"logger={chosen}").logger
    assert (made.tensorboard, made.wandb) == (tensorboard, wandb)


@pytest.mark.system
def test_wandb_works_offline_without_an_account(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, as a requeued job: two folders of one run, which `wandb sync` puts together."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    first = train(tiny("logger=wandb", "steps=4", "trainer.checkpoint_every=2"))
    for path in (first / "finished.json", *(first / "checkpoints").glob("step-00000004")):
        path.rename(path.with_name(f"gone-{path.name}"))
    train(tiny("logger=wandb", "steps=4", "trainer.checkpoint_every=2", "resume=auto"))
    folders = list((first / "wandb").glob(f"offline-run-*-{run_id(first)}"))
    assert len(folders) == 2 and all(list(folder.glob("*.wandb")) for folder in folders)
