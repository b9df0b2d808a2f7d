"""The script that checks by the order of commits what was declared first, on a repository of its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.declared import before, composed, drift, frozen_now, late
from instructblip.evaluation.declaration import How, load, settings_hash
from instructblip.evaluation.tables import scaled
from instructblip.evaluation.tables.results import Result
from instructblip.files import write_json
from tests.test_experiments import experiment


class Repository:
    """Commits in a folder; `commit` returns what `revision()` would say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._git("init", "-q")

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            (self.folder / f"{name}.yaml").write_text(text)
        self._git("add", "-A")
        self._git("commit", "-q", "-m", "x", "--allow-empty")
        return self._git("rev-parse", "--short=12", "HEAD")

    def _git(self, *arguments: str) -> str:
        own = ["-c", "user.name=x", "-c", "user.email=x@example.invalid"]
        done = subprocess.run(
            ["git", "-C", str(self.folder), *own, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "repository").mkdir()
    return Repository(tmp_path / "repository")


def run_of(code: str, folder: Path) -> Result:
    write_json(folder / "versions.json", {"code": code})
    write_json(folder / "finished.json", {})
    return Result(folder, {"experiment": ["miniature"], "seed": 100, "paths": {"raw": "none"}}, ())


def test_a_run_of_code_before_the_declaration_is_late(repository: Repository, tmp_path: Path) -> None:
    early = repository.commit(code="1")
    declaration = repository.commit(declared="a")
    after = repository.commit(code="2")
    run = tmp_path / "run"
    assert before(repository.folder, declaration, run_of(after, run)) == []
    assert before(repository.folder, declaration, run_of(declaration, run)) == []
    assert (
        "does not have the declaration's last change" in before(repository.folder, declaration, run_of(early, run))[0]
    )
    assert before(repository.folder, declaration, run_of(f"{after}-dirty", run)) == [
        f"its code was changed since commit {after}"
    ]
    assert before(repository.folder, declaration, run_of("unknown", run)) == ["its code is no known commit"]
    assert "0123456789ab" in before(repository.folder, declaration, run_of("0123456789ab", run))[0]


def test_a_declaration_that_was_changed_afterwards_is_late_for_all_runs_before(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit(declared="a")
    code = repository.commit(code="1")
    path, run = repository.folder / "declared.yaml", run_of(code, tmp_path / "run")
    unfrozen = ["run (instruct): the settings are not frozen"]
    assert late(load(), [run], path) == unfrozen
    repository.commit(declared="b")
    assert "does not have the declaration's last change" in late(load(), [run], path)[-1]
    path.write_text("c")
    assert late(load(), [run], path) == ["declared.yaml is not committed as it stands"]


def test_the_frozen_settings_are_those_a_run_directory_holds() -> None:
    declared = load()
    now = frozen_now(declared)
    assert set(now) == {*declared.arms, "world"} and len(set(now.values())) == len(now)
    assert drift(declared) == [] or drift(declared) == ["the settings are not frozen yet: --freeze prints them"]
    assert drift(replace(declared, frozen=now)) == []
    assert drift(replace(declared, frozen=now | {"plain": "0"})) == [f"plain: frozen as 0, composes to {now['plain']}"]
    assert composed(["miniature"])["steps"] == experiment("miniature").steps
    assert settings_hash(composed(["miniature"])) == now["instruct"]


def test_the_runs_that_confirm_are_those_of_every_arm_that_is_tested_over_the_declared_seeds() -> None:
    declared = load()
    parts = [part for hypothesis in declared.hypotheses for part in hypothesis.parts if part.how is not How.gap]
    arms = {name for part in parts for name in (part.first, part.second) if name}
    confirmation = scaled.load(scaled.TABLES.with_name("miniature_confirmation.yaml"))
    rows = {(tuple(experiment), row.prompts) for experiment, row in confirmation.experiments()}
    assert rows == {(tuple(declared.arms[name].experiment), declared.arms[name].prompts) for name in arms}
    assert set(confirmation.seeds) < set(declared.seeds)
