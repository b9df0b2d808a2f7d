"""The page in headless Chromium, opened as a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructblip.evaluation.pages.page import write_report
from instructblip.evaluation.tables.results import results
from tests.evaluation.conftest import World
from tests.fixtures.browser import Visit, visit
from tests.fixtures.debian import Unavailable

from .conftest import asked

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def opened(address: str, folder: Path, *options: str) -> Visit:
    try:
        return visit(address, folder, *options)
    except Unavailable as reason:
        pytest.skip(f"no Chromium: {reason}")


def cards(html: str) -> list[tuple[str, float, bool]]:
    """Recipe, error and whether it is hidden, in the order on the page."""
    found = re.findall(r'<article class="card" ([^>]*)>', html)
    return [
        (re.findall('data-recipe="(.*?)"', each)[0], float(re.findall('data-error="(.*?)"', each)[0]), "hidden" in each)
        for each in found
    ]


def test_the_page_opens_alone_and_its_examples_sort_and_filter(reported: World, tmp_path: Path) -> None:
    report = write_report(asked(reported), results([], reported.run.parent), tmp_path / "report")
    plain = opened(f"file://{report}", tmp_path / "plain")
    assert not plain.console and not plain.requests and "18 shown" in plain.html
    asked_for = opened(f"file://{report}#sort=error&recipe=vsr", tmp_path / "sorted")
    assert not asked_for.console and not asked_for.requests and "11 shown" in asked_for.html
    shown = [error for _, error, hidden in cards(asked_for.html) if not hidden]
    assert shown == sorted(shown, reverse=True) and len(set(shown)) > 1
    assert {recipe for recipe, _, hidden in cards(asked_for.html) if hidden} == {"vqav2"}
    assert [error for _, error, _ in cards(plain.html)] != [error for _, error, _ in cards(asked_for.html)]


def test_a_request_or_an_error_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('broken')</script><img src='http://example.invalid/x.png'>")
    found = opened(f"file://{path}", tmp_path / "bad")
    assert found.requests == ["http://example.invalid/x.png"] and any("broken" in line for line in found.console)


@pytest.mark.parametrize("width", [1300, 500])
def test_nothing_is_wider_than_the_window(reported: World, tmp_path: Path, width: int) -> None:
    report = write_report(asked(reported), results([], reported.run.parent), tmp_path / "report")
    probe = report.with_name("probe.html")
    measure = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></html>"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text())
    probe.write_text(text.replace("</html>", measure))
    html = opened(f"file://{probe}", tmp_path / "wide", "--dump-dom", f"--window-size={width},900").html
    inner, outer = map(int, re.findall(r"<title>(\d+) of (\d+)</title>", html)[0])
    assert inner <= outer <= width
