"""The run directory: enough to run again, refused to a second writer, honest about what is unfinished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip.config import TrainConfig
from instructblip.files import write_json
from instructblip.training import run as module
from instructblip.training.run import begin, is_finished, opened, read_config

Tiny = Callable[..., TrainConfig]


def test_a_run_directory_says_how_to_run_again(tiny: Tiny) -> None:
    config = tiny("optim.lr=3e-4")
    with opened(config) as folder:
        assert read_config(folder) == config
        versions = json.loads((folder / "versions.json").read_text())
    assert {"code", "python", "torch", "transformers", "lightning"} <= set(versions)


def test_an_unfinished_run_is_refused_without_resume(tiny: Tiny) -> None:
    with opened(tiny()):
        pass
    with pytest.raises(ValueError, match="unfinished run: resume=auto goes on"), opened(tiny()):
        pass
    with opened(tiny("resume=auto")) as folder:
        assert folder.name == "run"


def test_a_changed_config_is_refused_with_the_difference(tiny: Tiny) -> None:
    with opened(tiny()):
        pass
    with pytest.raises(ValueError, match=r"optim\.lr: .* is now 0\.5"), opened(tiny("resume=auto", "optim.lr=0.5")):
        pass
    with opened(tiny("resume=auto", "trainer.micro_batch_size=2")):
        pass  # how a run is executed may change


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
    write_json(Path(config.paths.runs) / config.name / "finished.json", {})
    assert is_finished(config)


def test_a_run_goes_on_only_over_its_own_data(tmp_path: Path) -> None:
    facts = {"recipes": {"vsr": "1"}, "tables": {"vsr": "x"}, "stream": "y"}
    begin(tmp_path, facts)
    begin(tmp_path, facts)
    with pytest.raises(ValueError, match="over other data, tables differ"):
        begin(tmp_path, {**facts, "tables": {"vsr": "z"}})
    assert config_unchanged(tmp_path, facts)


def config_unchanged(folder: Path, facts: dict[str, object]) -> bool:
    return json.loads((folder / "start.json").read_text()) == facts
