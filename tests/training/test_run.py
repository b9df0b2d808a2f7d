"""The run directory: enough to run again, refused to a second writer, honest about what is unfinished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip.config.training import TrainConfig
from instructblip.files import write_json
from instructblip.training import run as module
from instructblip.training.run import begin, is_finished, opened, read_config

Tiny = Callable[..., TrainConfig]


FACTS: dict[str, object] = {"recipes": {"vsr": "1"}, "tables": {"vsr": "x"}, "stream": "y"}


def begun(config: TrainConfig) -> Path:
    with opened(config) as folder:
        begin(folder, config, FACTS)
    return folder


def test_a_run_directory_says_how_to_run_again(tiny: Tiny) -> None:
    config = tiny("optim.lr=3e-4")
    folder = begun(config)
    assert read_config(folder) == config
    versions = json.loads((folder / "versions.json").read_text())
    assert {"code", "python", "torch", "transformers", "lightning"} <= set(versions)


def test_a_run_that_never_began_leaves_nothing_to_resume(tiny: Tiny) -> None:
    with pytest.raises(RuntimeError), opened(tiny()):
        raise RuntimeError("a table is missing")
    begun(tiny())


def test_an_unfinished_run_is_refused_without_resume(tiny: Tiny) -> None:
    begun(tiny())
    with pytest.raises(ValueError, match="unfinished run: resume=auto goes on"):
        begun(tiny())
    assert begun(tiny("resume=auto")).name == "run"


def test_a_changed_config_is_refused_with_the_difference(tiny: Tiny) -> None:
    begun(tiny())
    with pytest.raises(ValueError, match=r"optim\.lr: .* is now 0\.5"):
        begun(tiny("resume=auto", "optim.lr=0.5"))
    begun(tiny("resume=auto", "trainer.micro_batch_size=2"))  # how a run is executed may change


def test_a_second_writer_is_refused(tiny: Tiny) -> None:
    with (
        opened(tiny()),
        pytest.raises(ValueError, match=r"is being written by host \S+, process \d+, job"),
        opened(tiny("resume=auto")),
    ):
        pass


def test_other_processes_of_the_run_neither_lock_nor_write(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with opened(tiny()) as folder:
        assert not folder.exists()
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert module.rank() == 3


def test_finished_is_what_finished_json_says(tiny: Tiny) -> None:
    config = tiny()
    assert not is_finished(config)
    write_json(Path(config.paths.runs) / config.name / "finished.json", {"steps": config.steps})
    assert is_finished(config)
    assert not is_finished(tiny(f"steps={config.steps + 1}"))


def test_a_run_goes_on_only_over_its_own_data(tiny: Tiny) -> None:
    folder = begun(tiny())
    begin(folder, tiny(), FACTS)
    with pytest.raises(ValueError, match="over other data, tables differ"):
        begin(folder, tiny(), {**FACTS, "tables": {"vsr": "z"}})
    assert json.loads((folder / "start.json").read_text()) == FACTS
