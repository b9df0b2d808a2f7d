"""Sheets as text, the files, the program in an empty world, and the clean subset of a run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from instructblip.data.lineage import PUBLISHED, Seen
from instructblip.evaluation.tables import rendering
from instructblip.evaluation.tables.cells import fill
from instructblip.evaluation.tables.measuring import clean_score, items
from instructblip.evaluation.tables.published import load
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.report import outdated, pages, write
from instructblip.evaluation.tables.results import results
from instructblip.files import write_json
from tests.conftest import composed, run_program
from tests.evaluation.conftest import World, world  # noqa: F401

from .conftest import PAPER, Made

GQA = {"value": 0.495, "n": 12578, "metric": "gqa_accuracy", "interval": [0.485, 0.505]}


def shown(sheet: Sheet, width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(rendering.terminal(sheet))
    return capture.get()


def test_table_1_fits_160_columns_and_says_what_each_row_needs(runs: Path, make: Made) -> None:
    make("vicuna7b", gqa=GQA)
    table = load("table1")
    sheet = rendering.grid(table, fill(table, results([], runs), PAPER))
    text = shown(sheet)
    assert max(map(len, text.splitlines())) <= 160
    assert all(title in text for title in ("NoCaps", "MSRVTT", "InstructBLIP FlanT5-XXL", "119.9'", "49.5", "+0.3 ="))
    notes = "\n".join(sheet.notes)
    assert "InstructBLIP FlanT5-XL: needs `python train.py experiment=flant5xl`" in notes
    assert "= within interval" in notes and "notes of the PDF" in notes


def test_markdown_and_latex_hold_every_cell(runs: Path, make: Made, tmp_path: Path) -> None:
    make("vicuna7b", gqa=GQA)
    config = composed("report", "table=1", f"paths.runs={runs}")
    (page,) = pages(config, results([], runs))
    paths = write(page, tmp_path / "report")
    assert [path.name for path in paths] == ["table1.md", "table1.tex"]
    markdown, latex = (path.read_text() for path in paths)
    assert markdown.count("\n|") == (11 + 2) + (11 * 13 + 2)
    assert "| 49.2' | notes of the PDF by one reader | 49.5 | +0.3 | 48.5 to 50.5 | items | 12,578 |" in markdown
    assert "[vicuna7b-s1](" in markdown and "recipe=msvd_qa`" in markdown
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"msvd\_qa" in latex and "msvd_qa" not in latex and r"\shortstack{49.2' \\ 49.5 \\ +0.3 =}" in latex


def test_signs_that_latex_reads_are_escaped() -> None:
    sheet = Sheet("a & b", ("", "50 %"), [["x_1", "~5\n#2"]], ["{n}"])
    text = rendering.latex(sheet)
    assert r"a \& b" in text and r"50 \%" in text and r"x\_1 & \shortstack{\textasciitilde{}5 \\ \#2}" in text
    assert "| x_1 | ~5<br>#2 |" in rendering.markdown(sheet)


@pytest.mark.parametrize("ran", [False, True])
def test_every_table_is_latex_that_compiles_as_far_as_signs_go(runs: Path, make: Made, ran: bool) -> None:
    if ran:
        make("vicuna7b", gqa=GQA)
        make("vicuna7b", name="tiny_%&#", gqa=GQA, seed=2, config={"model": {"random_init": True}})
    config = composed("report", "table=all", f"paths.runs={runs}")
    for page in pages(config, results([], runs)):
        for sheet in (*page.sheets, *page.more):
            text = rendering.latex(sheet)
            plain = re.sub(r"\\\\|\\[&%$#_{}]", "", text)  # without what is escaped, and ends of lines
            assert plain.count("{") == plain.count("}") and not re.search(r"[_%#~^]", plain), sheet.title
            assert not re.search(r"\\\\\s*\[", text), "a line that begins with a bracket is read as a length"
            rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
            assert len(rows) == len(sheet.lines)
            ends = [re.sub(r"\\&", "", row).count("&") for row in rows]
            assert set(ends) <= {len(sheet.header) - 1}, sheet.title
            assert plain.count("$") % 2 == 0 and text.isascii(), {letter for letter in text if not letter.isascii()}


def test_older_scores_are_told_with_the_command(runs: Path, make: Made) -> None:
    path = make("vicuna7b", gqa=GQA) / "eval/gqa/paper-0/scores.json"
    path.write_text(json.dumps({"recipe": "gqa", "value": 0.5}))
    (line,) = outdated(results([], runs))
    assert "without profile, metric, n," in line
    assert "python evaluate.py run=vicuna7b-s1 recipe=gqa predict=false" in line


@pytest.mark.system  # a process of its own, with every table
def test_the_program_prints_a_table_where_nothing_was_run(tmp_path: Path) -> None:
    result = run_program("report.py", "table=all", f"paths.runs={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "Table 1: zero-shot" in result.stdout and "51 of 52" in result.stdout
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("table1", "table2", "table3", "figure4", "table4", "table5", "figure2", "claims", "prompts") for kind in ("md", "tex")}  # fmt: skip


def test_the_clean_subset_leaves_out_pictures_of_the_lineage(world: World) -> None:  # noqa: F811
    """The picture of statements 0, 5 and 10 was trained on."""
    world.predict("vsr")
    scores = world.score("vsr")
    config = {"experiment": ["vicuna7b"], "seed": 1, "paths": {"data": str(world.data), "raw": "raw"}}
    OmegaConf.save(OmegaConf.create(config), world.run / "config.yaml")
    (result,) = results([], world.run.parent)
    own = items(result, result.scores[0])
    assert items(result, result.scores[0]) is own, "read once in a process"
    assert own.measured.value == scores.value and own.images[:6] == tuple(f"coco/{n}" for n in (0, 1, 2, 3, 4, 0))
    seen = [Seen("coco_caption", "train", "t", 10, 3)]
    with pytest.raises(ValueError, match=r"no audit of vsr/test .*audit=true"):
        clean_score(result, result.scores[0], seen)
    audit = world.data / "audit"
    facts = {"overlaps": [], "kept": {"coco_caption/train": {"table": "t"}}, "evaluated": {"vsr/test": "table of vsr"}}
    write_json(audit / "overlaps.json", facts)
    (audit / "shared").mkdir()
    np.save(audit / "shared" / "coco_caption-train--vsr-test.npy", np.array([0, 5, 10]))
    assert own.measured.items is not None
    rest = [own.measured.items[row] or 0.0 for row in (1, 2, 3, 4, 6, 7, 8, 9)]
    assert clean_score(result, result.scores[0], seen) == (pytest.approx(sum(rest) / 8), 8)
    with pytest.raises(ValueError, match="no audit of coco_caption/train as it was trained on"):
        clean_score(result, result.scores[0], [replace(seen[0], manifest="other")])
    with pytest.raises(ValueError, match="coco_caption/train, which these weights have seen, is not prepared here"):
        clean_score(result, result.scores[0], [replace(seen[0], manifest=PUBLISHED)])
    assert clean_score(result, result.scores[0], []) == (scores.value, 11), "nothing is read where all of it is clean"
    path = result.scores[0].path.with_name("predictions.jsonl")
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="is not what was scored"):
        items(result, result.scores[0])
