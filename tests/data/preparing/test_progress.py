"""Progress is seen in a log as well as in a terminal, and nothing is lost on the way."""

from __future__ import annotations

import re

import pytest

from instructblip.data.preparing.progress import bar, lines


def test_a_log_gets_lines_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(lines(range(3), "rows", every=0)) == [0, 1, 2]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and re.fullmatch(r"rows: 2 of 3, [\d,]+/s, 0 s left", said[1])
    assert list(lines(iter("ab"), "rows", every=0)) == ["a", "b"]
    assert re.fullmatch(r"rows: 1, [\d,]+/s", capsys.readouterr().out.splitlines()[0])


def test_nothing_is_printed_between_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bar(range(5), "rows")) == list(range(5))
    assert capsys.readouterr().out == ""
