"""What `explain=MIXTURE` prints, and that a dry run prints the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import run_program


def line(text: str, start: str) -> list[str]:
    return next(words for words in map(str.split, text.splitlines()) if words and words[0] == start)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


def test_a_mixture_is_explained_without_data(tmp_path: Path) -> None:
    done = run_program("-X", "importtime", "prepare.py", "explain=paper", f"paths.data={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "60,000 steps of 128 = 7,680,000 samples" in done.stdout
    assert line(done.stdout, "okvqa") == ["okvqa", "9,009", "question", "94.9", "2*", "0.0232", "9,009", "19.77"]
    assert line(done.stdout, "web_capfilt")[-1] == "0.25", "the rows that the mixture demands"
    assert line(done.stdout, "llava_conversation")[-2:] == ["?", "~3.90"], "turns are not counted anywhere"
    assert "* ours" in done.stdout and "13,873,136 rows of web_capfilt/train, 0 are prepared" in done.stdout
    assert "| torch\n" not in done.stderr


def test_a_stand_in_split_is_shown_and_steps_are_the_users(tmp_path: Path) -> None:
    given = ["explain=paper_558k", "steps=1000", "batch_size=64", f"paths.data={tmp_path}"]
    said = run_program("prepare.py", *given).stdout
    assert "1,000 steps of 64 = 64,000 samples" in said
    assert line(said, "web_capfilt/pretrain_558k")[-2:] == ["558,128", "0.05"]


def test_a_misspelt_mixture_is_refused_with_the_nearest() -> None:
    done = run_program("prepare.py", "explain=paper_url")
    assert done.returncode == 2 and "did you mean 'paper_urls'" in done.stderr


def test_a_dry_run_shows_the_same_table(tmp_path: Path) -> None:
    explained = run_program("prepare.py", "explain=paper", f"paths.data={tmp_path}").stdout
    planned = run_program("train.py", "experiment=vicuna7b", "dry_run=true", f"paths.data={tmp_path}").stdout
    for name in ("coco_caption", "web_capfilt", "aokvqa", "llava_reasoning"):
        assert line(planned, name) == line(explained, name)
    assert "mixture paper asks for" in planned and planned.count("mixture=no_web") == 1
    other = ["mixture.weighting=temperature", "mixture.temperature=3"]
    changed = run_program("train.py", "experiment=vicuna7b", "dry_run=true", *other).stdout
    assert "root = size^(1/3) (temperature)" in changed
