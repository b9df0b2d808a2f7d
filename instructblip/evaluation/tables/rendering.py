"""Tables as text: on the terminal, in Markdown and in LaTeX. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from instructblip.evaluation.runs import name_of
from instructblip.evaluation.tables.cell import Cell, Verdict
from instructblip.evaluation.tables.published import MARKS, MEANINGS, PaperTable

SIGNS = {
    Verdict.inside: "=",
    Verdict.near: "≈",
    Verdict.differs: "≠",
    Verdict.other_split: "s",
    Verdict.ineligible: "x",
    Verdict.unknown: "u",
    Verdict.other_recipe: "r",
    Verdict.selected: "t",
    Verdict.part: "p",
    Verdict.no_interval: "i",
    Verdict.published: "",
    Verdict.not_run: "",
}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≈": r"$\approx$", "≠": r"$\neq$", "±": r"$\pm$",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", "[": "{[}",  # which after the end of a line would be a length
}  # fmt: skip
Line = Sequence[str]


@dataclass(frozen=True)
class Sheet:
    """A table of texts, whatever it is about: header, lines, and what stands below."""

    title: str
    header: Line
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    numbers: bool = False  # all columns but the first


def number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def published(cell: Cell) -> str:
    return "-" if cell.published is None else f"{cell.published:.1f}{MARKS[cell.certainty]}"


def grid(table: PaperTable, cells: Sequence[Cell]) -> Sheet:
    """Rows and columns as the paper prints them; a cell is published, ours, difference, verdict, or what it needs."""
    titles = [column.title for column in table.columns.values() if column.shown]
    marks: dict[tuple[str, str], int] = {}  # (row, what it needs first) -> number of the note
    for cell in cells:
        if cell.verdict is Verdict.not_run:
            marks.setdefault(_need(cell), len(marks) + 1)
    lines, at = [], 0
    for row in table.rows:
        own = cells[at : at + len(titles)]
        at += len(titles)
        lines.append([row.title, *(_stacked(cell, marks) for cell in own)])
    notes = [_legend(cells), *table.notes]
    notes += [f"[{mark}] {row}: {first}" for (row, first), mark in marks.items()]
    if marks:
        notes.append("The list of cells in the files has the command of each cell.")
    return Sheet(f"{table.title} ({table.source})", ["", *titles], lines, notes, numbers=True)


def details(table: PaperTable, cells: Sequence[Cell]) -> Sheet:
    """One line a cell, with everything that is known of it."""
    header = (
        "row", "column", "published", "known from", "ours", "difference", "95 % interval", "variation", "n",
        "clean subset", "verdict", "runs",
    )  # fmt: skip
    return Sheet(f"Cells of {table.title}", header, [_detail(cell) for cell in cells])


def verdict(cell: Cell) -> str:
    """In words, with what was found beside it."""
    said = cell.verdict.value + (f": {cell.why}" if cell.why else "")
    return "; ".join([said, *cell.notes])


def terminal(sheet: Sheet) -> Table:
    """For a terminal; cells may hold several lines."""
    table = Table(title=Text(sheet.title), show_lines=any("\n" in text for line in sheet.lines for text in line))
    for place, name in enumerate(sheet.header):
        justify: JustifyMethod = "right" if sheet.numbers and place else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", min_width=len(name) if sheet.numbers else None)
    for line in sheet.lines:
        table.add_row(*map(Text, line))
    return table


def shown(sheet: Sheet) -> list[Table | Text]:
    """For a terminal, with its notes below."""
    return [terminal(sheet), *map(Text, sheet.notes)]


def markdown(sheet: Sheet) -> str:
    lines = [f"## {sheet.title}", ""]
    if sheet.lines:
        lines += [_markdown_line(sheet.header), "|" + "---|" * len(sheet.header)]
        lines += [_markdown_line(line) for line in sheet.lines]
    lines += ["", *(f"- {note}" for note in sheet.notes)]
    return "\n".join(lines).rstrip() + "\n"


def latex(sheet: Sheet) -> str:
    """A `tabular` with booktabs rules; the notes follow as text."""
    body = [" & ".join(_latex_cell(text) for text in line) + r" \\" for line in sheet.lines]
    lines = [
        rf"\begin{{table}}\caption{{{_escaped(sheet.title)}}}", r"\small",
        rf"\begin{{tabular}}{{l{('r' if sheet.numbers else 'l') * (len(sheet.header) - 1)}}}", r"\toprule",
        " & ".join(map(_escaped, sheet.header)) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
        *(rf"\par {_escaped(note)}" for note in sheet.notes), r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _stacked(cell: Cell, marks: dict[tuple[str, str], int]) -> str:
    if cell.verdict is Verdict.published:
        return published(cell)
    if cell.verdict is Verdict.not_run:
        return f"{published(cell)}\n[{marks[_need(cell)]}]"
    return (
        f"{published(cell)}\n{number(cell.ours)}\n{number(cell.difference, signed=True)} {SIGNS[cell.verdict]}".rstrip()
    )


def _need(cell: Cell) -> tuple[str, str]:
    """What a cell needs first; its evaluation comes after that."""
    return cell.row, cell.why.split(", then ")[0]


def _legend(cells: Sequence[Cell]) -> str:
    known = dict.fromkeys(cell.certainty for cell in cells if cell.published is not None)
    marks = ", ".join(f"{MARKS[each] or 'unmarked'} {MEANINGS[each]}" for each in known)
    used = dict.fromkeys(cell.verdict for cell in cells if SIGNS[cell.verdict])
    signs = ", ".join(f"{SIGNS[each]} {each.value}" for each in used)
    return f"Published values: {marks}." + (f" Below: ours, the difference, and {signs}." if signs else "")


def _detail(cell: Cell) -> list[str]:
    bounds = "" if cell.low is None else f"{number(cell.low)} to {number(cell.high)}"
    clean = "" if cell.clean_n is None else f"{number(cell.clean) or 'undefined'} of {cell.clean_n:,}"
    return [
        cell.row, cell.column, published(cell), MEANINGS[cell.certainty] if cell.published is not None else "",
        number(cell.ours), number(cell.difference, signed=True), bounds, cell.source if bounds else "",
        "" if cell.n is None else f"{cell.n:,}", clean, verdict(cell),
        " ".join(f"[{name_of(run.parents[2])}]({run.as_posix()})" for run in cell.runs),
    ]  # fmt: skip


def _markdown_line(texts: Line) -> str:
    return "| " + " | ".join(text.replace("|", r"\|").replace("\n", "<br>") for text in texts) + " |"


def _latex_cell(text: str) -> str:
    lines = r" \\ ".join(map(_escaped, text.split("\n")))
    return lines if "\n" not in text else rf"\shortstack{{{lines}}}"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
