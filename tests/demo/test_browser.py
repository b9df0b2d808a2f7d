"""The page in headless Chromium, with neither it nor the program having a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from instructblip.config.training import TrainConfig
from instructblip.demo.asking import Decoder
from instructblip.inference import load
from instructblip.training.run import opened
from tests.conftest import ROOT
from tests.fixtures.debian import Unavailable, install
from tests.fixtures.devtools import Tab, tab
from train import fit

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
pytest.importorskip("gradio", reason="gradio is not installed")
QUESTION = "What color is the circle?"


@dataclass(frozen=True)
class Served:
    address: str
    run: Path
    program: subprocess.Popen[str]
    left: Path  # where it says what it wanted of other machines


@pytest.fixture
def served(tiny: Callable[..., TrainConfig], tmp_path: Path) -> Iterator[Served]:
    try:
        install(("chromium",), ("chromium",))
    except Unavailable as reason:
        pytest.skip(f"no Chromium: {reason}")
    with opened(tiny("steps=1")) as run:
        fit(tiny("steps=1"), run)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests/fixtures/offline"), "LEFT": str(tmp_path / "left"), "TMPDIR": str(tmp_path),
    }  # fmt: skip
    command = [sys.executable, "demo.py", f"run={run}", "port=0"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        address = next((line for line in program.stdout if line.startswith("Open ")), "Open nothing").split()[1]
        yield Served(address, run, program, tmp_path / "left")
        program.kill()


def chosen(page: Tab, file: Path) -> None:
    """The picture, once it is on the page; one that was there before makes room."""
    page.run("document.querySelector('#picture [aria-label=\"Remove Image\"]')?.click()")
    page.wait("!document.querySelector('#picture img') && !!document.querySelector('#picture input[type=file]')")
    page.choose("#picture input[type=file]", file)
    page.wait("!!document.querySelector('#picture img')")


def value(page: Tab, name: str) -> str:
    return str(page.run(f"document.querySelector('#{name} textarea, #{name} input').value"))


def test_load_choose_ask_see(served: Served, tmp_path: Path) -> None:
    picture, fake = tmp_path / "photo.png", tmp_path / "fake.png"
    Image.effect_noise((60, 40), 60).convert("RGB").save(picture)
    fake.write_text("no picture")
    with tab(tmp_path / "chromium") as page:
        page.do("Page.navigate", url=served.address)
        page.wait("!!document.querySelector('#ask')")
        page.click("#ask")
        page.wait("document.querySelector('#told').innerText.includes('There is no picture')")
        chosen(page, picture)
        page.write("#instruction textarea", QUESTION)
        page.write("#options textarea", "red\nblue\n\ngreen")
        page.click("#ask")
        page.wait("document.querySelectorAll('#maps img').length >= 3")
        page.wait("document.querySelector('#likelihood textarea').value !== ''")
        seen = {name: value(page, name) for name in ("answer", "likelihood")}
        rows = page.wait(
            "document.querySelector('#ranking').innerText.includes('%') && document.querySelector('#ranking').innerText"
        )
        told = page.run("document.querySelector('#told').innerText")
        page.photograph(tmp_path / "page.png")
        page.click("#recipe")
        page.wait("document.querySelector('#num_beams input').value === '5'")
        chosen(page, fake)
        page.click("#ask")
        page.wait("document.querySelector('#told').innerText.includes('This is no picture')")
        assert not page.errors and page.asked == {"127.0.0.1"}
    assistant = load(served.run)
    settings = {**Decoder.of("vqav2", assistant.family).settings, "num_beams": 1}
    answer = assistant.answer(picture, QUESTION, **settings)
    ranked = assistant.rank(picture, QUESTION, ["red", "blue", "green"])
    assert seen["answer"] == answer
    assert float(seen["likelihood"]) == pytest.approx(assistant.rank(picture, QUESTION, [answer])[0][1], abs=1e-3)
    told_scores = [f"{text} {score:.4f}" for text, score in ranked]
    assert re.findall(r"\w+ -?\d+\.\d{4}", " ".join(rows.split())) == told_scores
    assert told == "Line 3 of the options is empty and was left out."
    assert Image.open(tmp_path / "page.png").convert("L").getextrema()[0] < 100
    served.program.terminate()
    assert served.program.wait(timeout=60) == 143 and not served.left.exists()
    assert not list(tmp_path.glob("instructblip-demo-*"))
