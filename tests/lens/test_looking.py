"""One picture under several instructions: what is written, what it shows, what is refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instructblip.config.evaluation import ReportConfig
from instructblip.evaluation.lens.drawing import GAP, LINE, MARGIN, TILE, draw
from instructblip.evaluation.lens.finding import find
from instructblip.evaluation.lens.looking import look_inside, looked, read_instructions
from instructblip.evaluation.pages.lenses import UNAWARE, Facts, Look, findings, looks, section
from instructblip.evaluation.pages.page import write_report
from instructblip.evaluation.tables.results import results
from instructblip.files import read_json
from instructblip.inference import Assistant, load
from tests.conftest import composed, run_program
from tests.fixtures.browser import visit
from tests.fixtures.debian import Unavailable

from .conftest import untrained

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))
ASKED = ("What color is the circle?", "Where is the star?")
EVIL = "<script>alert(1)</script> what is it?"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    PICTURE.save(tmp_path / "one.png")
    (tmp_path / "asked.txt").write_text(f"{ASKED[0]}\n\n{EVIL}\n{ASKED[1]}\n")
    return tmp_path / "one.png", tmp_path / "asked.txt"


def config(runs: Path, **given: object) -> ReportConfig:
    found: ReportConfig = composed("report", "lens=true", f"paths.runs={runs}", "device=cpu")
    for name, value in given.items():
        setattr(found, name, None if value is None else str(value))
    return found


def planted(*weights: torch.Tensor) -> Look:
    """A look of one layer and two queries over CLS and 2 x 3 patches."""
    facts = Facts("run", "one.png", ("a", "b"), ("x", ""), (4,), (2, 3), True, "f00d", "c0de")
    return Look(facts, torch.stack(list(weights)), PICTURE)


def one(query: int, patch: int) -> torch.Tensor:
    weights = torch.zeros(1, 2, 7)
    weights[..., 0] = 1.0
    weights[0, query, :] = 0.0
    weights[0, query, 1 + patch] = 1.0
    return weights


def test_a_planted_map_lands_in_its_cell_on_page_and_png() -> None:
    look = planted(one(query=1, patch=4), one(query=1, patch=2))  # row 1 column 1, then row 0 column 2
    assert look.difference[0, 1].tolist() == [[0, 0, -1], [0, 1, 0]] and not look.difference[0, 0].any()
    (layer,) = section(look).layers
    assert layer.number == 4 and [row.name for row in layer.rows] == ["1", "2", "1 less 2"]
    assert layer.rows[0].cells[2].said == "query 1: 1.000 in row 2, column 2; CLS 0.000"
    assert layer.rows[1].cells[2].said == "query 1: 1.000 in row 1, column 3; CLS 0.000"
    assert layer.rows[0].cells[1].said.endswith("CLS 1.000") and "CLS has 50.0%" in section(look).cards[1].note
    sheet = np.asarray(draw(look)).astype(int)
    left, top = MARGIN + 2 * (TILE + GAP), GAP + 2 * LINE
    tile = sheet[top : top + TILE, left : left + TILE]
    orange = tile[..., 0] - tile[..., 2] > 60
    assert orange[TILE // 2 :, TILE // 3 : 2 * TILE // 3].all() and orange.sum() == TILE // 2 * TILE // 3


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_an_aware_model_looks_elsewhere_and_an_unaware_one_never(model: str) -> None:
    blind = untrained(f"model={model}", "model.qformer.instruction_aware=false")
    aware, unaware = Assistant.of(untrained(f"model={model}")), Assistant.of(blind)
    first, second = (aware.attention(PICTURE, text) for text in ASKED)
    assert first.maps.shape == (2, 8, 3, 3) and not torch.equal(first.weights, second.weights)
    assert torch.equal(*(unaware.attention(PICTURE, text).weights for text in ASKED))
    with pytest.raises(ValueError, match="not over a clip of 2"):
        aware.attention([PICTURE, PICTURE], ASKED[0])  # type: ignore[arg-type]


def test_the_page_says_why_nothing_differs() -> None:
    same = looked(untrained("model.qformer.instruction_aware=false"), PICTURE, ASKED, "run", "one.png")
    assert not same.difference.any() and UNAWARE in section(same).notes
    assert section(same).cards[-1].note == "no difference at all"
    assert UNAWARE not in section(planted(one(0, 0), one(0, 1))).notes


def test_page_png_weights_and_report(runs: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    image, asked = files
    (line,) = look_inside(config(runs, run="run", image=image, instructions=asked), tmp_path)
    page, png = map(Path, line.removeprefix("Written: ").split())
    text = page.read_text()
    assert EVIL not in text and "&lt;script&gt;alert(1)" in text and not re.search(r'(src|href)="(?!data:|#)', text)
    assert text.count("<table class=") == 2 and text.count("<td title=") == 2 * 4 * 9  # layers; and differences, means
    with Image.open(png) as sheet:
        assert sheet.width > 9 * TILE and png.parent.parent == runs / "run" / "lens"
    (saved,) = looks(runs / "run")
    assert saved.facts.instructions == (ASKED[0], EVIL, ASKED[1]) and saved.weights.shape == (3, 2, 8, 10)
    report = write_report(composed("report", f"paths.runs={runs}"), results([], runs), tmp_path).read_text()
    assert "run looks at one.png" in report and report.count("<td title=") == 2 * 4 * 9


@pytest.mark.system
def test_a_checkpoint_of_others_is_looked_into(runs: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    load(runs / "run").save_pretrained(tmp_path / "theirs")
    given = {"image": files[0], "instructions": files[1]}
    look_inside(config(runs, checkpoint=tmp_path / "theirs", **given), tmp_path)
    look_inside(config(runs, run="run", **given), tmp_path)
    (theirs,), (own,) = looks(runs / "released" / "theirs"), looks(runs / "run")
    # transformers' last norm of the vision encoder has another eps, 1e-6 instead of 1e-5
    torch.testing.assert_close(theirs.weights, own.weights, rtol=0, atol=1e-5)


def test_what_is_wrong_is_named_before_a_model_is_loaded(runs: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    image, asked = files
    (tmp_path / "single.txt").write_text("What?\n\n")
    (tmp_path / "bad.png").write_text("no picture")
    good = {"run": "run", "image": image, "instructions": asked}
    for change, message in (
        ({"run": "nobody"}, "neither a run directory nor the name"),
        ({"run": None}, "give run=NAME, or checkpoint=PATH"),
        ({"checkpoint": "x"}, "give run=NAME, or checkpoint=PATH"),
        ({"run": None, "checkpoint": "nowhere"}, "checkpoint=nowhere is not there"),
        ({"image": tmp_path / "none.png"}, "none.png is no picture that can be read"),
        ({"image": tmp_path / "bad.png"}, "bad.png is no picture that can be read"),
        ({"instructions": tmp_path / "none.txt"}, "none.txt cannot be read"),
        ({"instructions": tmp_path / "single.txt"}, "holds 1 instructions; give 2 or more"),
        ({"image": None}, "it was given instructions"),
    ):
        with pytest.raises(ValueError, match=message):
            look_inside(config(runs, **(good | change)), tmp_path)
    assert read_instructions(asked) == (ASKED[0], EVIL, ASKED[1])


def test_scenes_are_measured_saved_and_shown(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "run", runs / "twin", dirs_exist_ok=True)
    asked = composed("report", "lens=true", f"paths.runs={runs}", "run=run", "against=twin", "scenes=4", "device=cpu")
    table, path = find(asked)
    (saved,) = findings(runs / "run")
    assert (saved.title, saved.lines) == (table.title, table.lines) and path.parent == runs / "run" / "lens"
    facts = read_json(path)
    assert len(facts["items"]) == 2 and len(facts["items"][0]) == 4 and facts["items"][0] == facts["items"][1]
    assert [line[3] for line in table.lines if line[3]] == ["0.000, p 1.0000\n0.000 to 0.000"] * 5
    report = write_report(composed("report", f"paths.runs={runs}"), results(["run"], runs), tmp_path).read_text()
    assert "What run against twin looks at in 4 scenes of seed 1000" in report
    for change, message in (
        ({"against": "run"}, "against=run is the model that run= names"),
        ({"against": "nobody"}, "run=nobody is neither"),
        ({"scenes": 1}, "scenes=1: an interval needs two"),
    ):
        with pytest.raises(ValueError, match=message):
            find(replace(asked, **change))
    with pytest.raises(ValueError, match="it was given image and scenes"):
        look_inside(replace(asked, against=None, image="one.png"), tmp_path)


@pytest.mark.system
@pytest.mark.parametrize("width", [1300, 500])
def test_the_page_in_a_browser(runs: Path, files: tuple[Path, Path], tmp_path: Path, width: int) -> None:
    look_inside(config(runs, run="run", image=files[0], instructions=files[1]), tmp_path)
    (page,) = tmp_path.glob("lens-run-one-*.html")
    try:
        plain = visit(f"file://{page}", tmp_path / "plain")
        measure = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></html>"
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
        page.with_name("probe.html").write_text(text.replace("</html>", measure))
        options = ("--dump-dom", f"--window-size={width},900")
        probe = visit(f"file://{tmp_path}/probe.html", tmp_path / "wide", *options)
    except Unavailable as reason:
        pytest.skip(f"no Chromium: {reason}")
    assert not plain.console and not plain.requests and plain.html.count("<td title=") == 2 * 4 * 9
    inner, outer = map(int, re.findall(r"<title>(\d+) of (\d+)</title>", probe.html)[0])
    assert inner <= outer <= width


@pytest.mark.system
def test_the_program_refuses_with_2(runs: Path, files: tuple[Path, Path]) -> None:
    given = ["lens=true", f"image={files[0]}", f"instructions={files[1]}", f"paths.runs={runs}"]
    done = run_program("report.py", *given, "run=nobody")
    assert done.returncode == 2 and "run=nobody is neither" in done.stderr and "Traceback" not in done.stderr
    assert run_program("report.py", *given, "run=run").returncode == 0
