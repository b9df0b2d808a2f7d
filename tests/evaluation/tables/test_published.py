"""The published numbers as data, what follows from them, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructblip.choices import Purpose
from instructblip.evaluation.tables import claims, described
from instructblip.evaluation.tables.published import SCORED, Certainty, PaperTable, load, read
from instructblip.evaluation.tables.report import NAMES, chosen
from instructblip.evaluation.tables.results import EXPERIMENTS
from tests.conftest import composed

from .conftest import PAPER

RESULTS = [load(name) for name in SCORED]


def test_table_1_has_11_rows_of_13_columns_and_its_sums_are_the_papers() -> None:
    table = load("table1")
    assert (len(table.rows), len(table.columns)) == (11, 13)
    rows = {row.title: row.cells for row in table.rows}
    assert sum(map(len, rows.values())) == 3 * 7 + 8 * 13
    eight = load("figure4").columns["held_out"].mean_of
    means = [sum(rows[row][column] for column in eight) / 8 for row in ("InstructBLIP FlanT5-XL", "BLIP-2 FlanT5-XL")]
    assert means == pytest.approx([52.825, 46.4])  # PAPER's own recomputation: 52.83 and 46.40
    assert rows["Flamingo-80B"]["msrvtt_qa"] == 17.4 and "gqa" not in rows["Flamingo-80B"]


def test_table_2_agrees_with_table_1_and_marks_what_is_from_memory() -> None:
    first, second = load("table1"), load("table2")
    rows = {row.title: row.cells for row in first.rows}
    for row in (second.rows[0], second.rows[3]):
        assert {name: value for name, value in row.cells.items() if "held" not in name}.items() <= rows[
            row.title
        ].items()
    unsure = [
        (row.title, name) for row, name, _ in second.cells() if second.certainty_of(row, name) is Certainty.memory
    ]
    assert len(unsure) == 2 + 6 + 6  # each held-in average counts twice, for direct answer and multiple choice
    drops = [
        (second.rows[0].cells[name] - second.rows[1].cells[name])
        for name in ("held_in_da", "gqa", "scienceqa", "iconqa", "vizwiz", "ivqa")
    ]
    assert drops == pytest.approx([4.3, 2.5, 7.0, 4.2, 7.6, 5.6])


@pytest.mark.parametrize("table", RESULTS, ids=SCORED)
def test_rows_and_columns_name_experiments_that_exist(table: PaperTable) -> None:
    names = {name for part in (*table.rows, *table.columns.values()) for name in part.experiment}
    assert names and all((EXPERIMENTS / f"{name}.yaml").is_file() for name in names)


@pytest.mark.system  # forty compositions
def test_every_experiment_of_a_table_composes_as_its_row_means() -> None:
    places = [
        (row, column, (*row.experiment, *column.experiment), row.start)
        for table in RESULTS
        for row in table.rows
        for column in table.columns.values()
        if row.experiment
    ]
    made = {
        (names, start): composed("train", f"experiment=[{','.join(names)}]", *([f"init={start}"] if start else []))
        for _, _, names, start in {place[2:]: place for place in places}.values()
    }
    assert len(made) == 8 + 4 + 4 * 5 + 2
    for row, column, names, start in places:
        config = made[names, start]
        assert not start or config.model.init == start
        if column.experiment:
            assert config.purpose is Purpose.finetune and row.start, f"{row.title}: says nothing of where it starts"
        elif row.title.startswith("BLIP-2"):
            assert config.purpose is Purpose.evaluate and not config.model.qformer.instruction_aware
        else:
            assert config.purpose is Purpose.instruction_tune


@pytest.mark.parametrize("name", sorted({row.released for table in RESULTS for row in table.rows if row.released}))
def test_published_weights_are_named_as_their_run_directory(name: str) -> None:
    folder, model = name.split("/")
    files = [EXPERIMENTS / f"{place}/{model}.yaml" for place in ("released", "baseline")]
    assert folder == "released" and any(file.is_file() for file in files)


def test_claims_that_do_not_follow_are_said_not_to() -> None:
    table = load("table1")
    outcomes = {}
    for claim in claims.load().claims:
        found = claims.recomputed(claim, load(claim.table), claims.paper_values(load(claim.table)))
        outcomes[claim.text[:30], claim.how.value] = (str(found), claims.says(claim, found).split(":")[0])
    assert list(outcomes.values()) == [
        ("17.1", "no"), ("14.6", "no"), ("47.1", "yes"), ("7 of 7", "yes"), ("25.8", "no"), ("24.5", "no"),
        ("25.0", "no"), ("51 of 52", "no"), ("12 of 13", "no"), ("90.7", "yes"), ("6.1", "yes"),
    ]  # fmt: skip
    best = next(claim for claim in claims.load().claims if claim.how is claims.How.best)
    assert "VSR 68.2 of BLIP-2 FlanT5-XXL" in claims.says(
        best, claims.recomputed(best, table, claims.paper_values(table))
    )


def test_a_claim_of_ours_counts_the_cells_it_lacks() -> None:
    table = load("table1")
    claim = next(claim for claim in claims.load().claims if claim.columns == ["msrvtt_qa"])
    assert claims.cells_of(claim, table) == [("InstructBLIP FlanT5-XXL", "msrvtt_qa")]  # Flamingo is published only


def test_categories_templates_and_prompts_are_the_papers() -> None:
    figure = described.figure2(PAPER)
    assert [line[4] for line in figure.lines[:-1]] == ["agrees"] * 11 and figure.lines[-1][3] == "4"
    wordings, prompts = described.table5()
    assert len(wordings.lines) == 13 + 10 + 6 and {line[2] for line in wordings.lines} == {"agrees"}
    assert len(prompts.lines) == 13
    assert [line[0] for line in prompts.lines if line[4] != "agrees"] == ["visdial"]  # whose questions lack their mark


def test_sizes_are_the_papers_but_where_it_is_said() -> None:
    lines = {line[0]: line for line in described.table4(PAPER).lines}
    assert len(lines) == 26
    other = {name for name, line in lines.items() if line[6] not in ("agrees", "nothing to compare")}
    assert other == {"vqav2", "ocrvqa", "llava_conversation", "vizwiz", "hateful_memes"}
    assert lines["vizwiz"][6] == "evaluated on val, the paper on test-dev"


def test_tables_have_short_names_and_a_misspelt_one_its_nearest() -> None:
    assert chosen("1") == ["table1"] and chosen("figure2") == ["figure2"] and chosen("all") == list(NAMES)
    with pytest.raises(ValueError, match="did you mean 'figure4'"):
        chosen("figur4")
    with pytest.raises(ValueError, match="table7"):
        chosen("7")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("recipe: gqa", "recipe: gqq", r"columns.gqa: unknown recipe 'gqq'; did you mean 'gqa'"),
        ("metric: gqa_accuracy", "metric: gqa_acuracy", r"columns.gqa: unknown metric"),
        ("gqa: 44.0", "gpa: 44.0", r"rows\[3\] \(BLIP-2 FlanT5-XL\): 'gpa' is no column"),
        ("gqa: 44.0", "gqa: high", "table1.yaml: .*'high'"),
        ("certainty: notes", "certainty: sure", "table1.yaml: .*sure"),
        ("split: testdev", "splits: testdev", "table1.yaml: .*splits"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    from instructblip.evaluation.tables.published import TABLES

    path = tmp_path / "table1.yaml"
    text = (TABLES / "table1.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read(path)
