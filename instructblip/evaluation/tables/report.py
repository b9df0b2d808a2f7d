"""From the name of a table to its sheets and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from instructblip.config.evaluation import ReportConfig
from instructblip.evaluation.tables import (
    ablations,
    claims,
    crowding,
    described,
    hypotheses,
    known,
    normalised,
    published,
    rendering,
    scaled,
    synthetic,
    wordings,
)
from instructblip.evaluation.tables.cell import Cell
from instructblip.evaluation.tables.cells import fill
from instructblip.evaluation.tables.published import SCORED
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result
from instructblip.files import replacing
from instructblip.names import require

DESCRIBED = ("table4", "table5", "figure2")
NAMES = ("table1", "table2", "table3", "figure4", "table4", "table5", "figure2", "claims", "prompts")
ALL = "all"


@dataclass(frozen=True)
class Page:
    """One table: what the terminal shows, and what only the files hold as well."""

    name: str
    sheets: tuple[Sheet, ...]
    more: tuple[Sheet, ...] = ()


def chosen(table: str) -> list[str]:
    """`1` is table1, `all` every one. Raises ValueError with the nearest name."""
    name = f"table{table}" if table.isdigit() else table
    require(name, [*NAMES, ALL], "table")
    return list(NAMES) if name == ALL else [name]


def pages(config: ReportConfig, found: Sequence[Result]) -> list[Page]:
    """The tables that were asked for, filled with these runs; runs in an embedded world have a page of their own."""
    names = chosen(config.table or ALL)
    wanted = [name for name in SCORED if name in names or "claims" in names]
    filled = {name: fill(published.load(name), found, config.partition, config.draws) for name in wanted}
    made = [_page(name, filled, found, config) for name in names]
    sheets = embedded(found, config.draws)
    return [*made, Page("synthetic", tuple(sheets))] if sheets else made


def embedded(found: Sequence[Result], draws: int) -> list[Sheet]:
    """Runs in an embedded world: every score, the held-out ones between floor and ceiling, the declared hypotheses."""
    scores = synthetic.sheet(found)
    if scores is None:
        return []
    more = [each for each in (known.sheet(found), crowding.sheet(found)) if each]
    return [scores, *normalised.sheets(found), *more, *scaled.sheets(found), *hypotheses.sheets(found, draws)]


def standings(found: Sequence[Result], draws: int) -> list[Table | Text]:
    """For a terminal: runs in an embedded world between floor and ceiling, and a line for each declared hypothesis."""
    parts = [part for sheet in normalised.sheets(found) for part in rendering.shown(sheet)]
    return [*parts, *map(Text, hypotheses.verdicts(found, draws))]


def outdated(found: Sequence[Result]) -> list[str]:
    """What scores of an older form lack, and the command that scores again."""
    return [
        f"{score.path} is of an older form, without {', '.join(score.outdated)}: "
        f"python evaluate.py run={result.name} recipe={score.path.parents[1].name} predict=false"
        for result in found
        for score in result.outdated
    ]


def write(page: Page, folder: Path) -> list[Path]:
    """`<name>.md` and `<name>.tex`."""
    paths = [folder / f"{page.name}.md", folder / f"{page.name}.tex"]
    sheets = [*page.sheets, *page.more]
    texts = ["\n".join(map(rendering.markdown, sheets)), "\n".join(map(rendering.latex, sheets))]
    for path, text in zip(paths, texts, strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def _page(name: str, filled: Mapping[str, Sequence[Cell]], found: Sequence[Result], config: ReportConfig) -> Page:
    if name == "prompts":
        return Page(name, tuple(wordings.sheets(found)))
    if name == "claims":
        return Page(name, (claims.sheet(filled),))
    if name == "table4":
        return Page(name, (described.table4(config.partition),))
    if name == "figure2":
        return Page(name, (described.figure2(config.partition),))
    if name == "table5":
        return Page(name, tuple(described.table5()))
    table, cells = published.load(name), filled[name]
    ran = any(cell.ours is not None for cell in cells)
    compared = ablations.sheet(table, cells, config.draws) if ran else None
    shown = [rendering.grid(table, cells), *([compared] if compared else [])]
    return Page(name, tuple(shown), (rendering.details(table, cells),))
