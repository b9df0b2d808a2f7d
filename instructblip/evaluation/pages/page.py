"""The report as one HTML file: it opens without a server, asks no network, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from instructblip.choices import Images
from instructblip.config.evaluation import ReportConfig
from instructblip.evaluation.pages.examples import Example, examples
from instructblip.evaluation.pages.history import History, history
from instructblip.evaluation.pages.lenses import Section, findings, looks, section
from instructblip.evaluation.pages.plots import DotPlot, Value, dot_plot
from instructblip.evaluation.predictions import parse
from instructblip.evaluation.runs import note_of
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.report import outdated, pages
from instructblip.evaluation.tables.results import Result
from instructblip.evaluation.tables.synthetic import HEADING
from instructblip.files import replacing
from instructblip.revision import revision

HERE = Path(__file__).parent
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")  # a run, as the Markdown tables name it


@dataclass(frozen=True)
class World:
    """Runs on real data, or on an embedded world: nothing of the one stands beside the other."""

    title: str
    plots: Sequence[DotPlot]
    scores: Sheet
    runs: Sequence[History]
    looks: Sequence[Section]
    findings: Sequence[Sheet]
    examples: Sequence[Example]
    missing: Sequence[str]


def write_report(config: ReportConfig, found: Sequence[Result], place: Path) -> Path:
    """`place/report.html`: tables, plots, curves, ledgers and examples of these runs."""
    sides = [("Runs", [each for each in found if not each.synthetic])]
    sides += [(f"Runs in a {HEADING}", [each for each in found if each.synthetic])]
    return write(
        place / "report.html",
        "report.html",
        title="Report",
        pages=pages(config, found),
        worlds=[_world(title, own, config) for title, own in sides if own],
        outdated=outdated(found),
        code=revision(),
    )


def write(path: Path, template: str, **facts: Any) -> Path:
    """Renders a template of this folder; what is text in `facts` is escaped, and only the page's own script may run."""
    script = (HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.filters["unlinked"] = lambda text: LINK.sub(r"\1", text)
    style = (HERE / "style.css").read_text(encoding="utf-8")
    text = environment.get_template(template).render(script=script, digest=digest, style=style, **facts)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _world(title: str, found: Sequence[Result], config: ReportConfig) -> World:
    shown, missing = examples(found, config.examples)
    return World(
        title, _plots(found, config), _scores(found), [history(each) for each in found],
        [section(look) for each in found for look in looks(each.folder)],
        [sheet for each in found for sheet in findings(each.folder)], shown, missing,
    )  # fmt: skip


def _scores(found: Sequence[Result]) -> Sheet:
    """Every score there is, with how it was asked."""
    header = ("run", "recipe", "prompts", "metric", "value", "95 %", "n", "note", "decoding", "checkpoint", "code")
    lines = []
    for result in found:
        for score in result.scores:
            facts = score.facts
            value = "undefined" if facts["value"] is None else f"{facts['value']:.4f}"
            bounds = "{:.3f} to {:.3f}".format(*facts["interval"]) if facts.get("interval") else ""
            names = [result.name, facts["recipe"], _way(facts), facts["metric"]]
            made = [
                decoding(score.path.with_name("predictions.jsonl")),
                facts["checkpoint"][:12],
                facts.get("code", ""),
            ]
            lines.append([*names, value, bounds, f"{facts['n']:,}", note_of(facts), *made])
    return Sheet("Every score, and how it was asked", header, lines)


def decoding(path: Path) -> str:
    """Mode and settings that the first prediction carries; empty where the predictions are not at hand."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        conditions, _ = parse(path, 1, file.readline())
    told = [f"{name} {value}" for name, value in conditions.decoding.items() if value is not None]
    return ", ".join([conditions.mode, *told])


def _way(facts: Mapping[str, Any]) -> str:
    return "-".join(filter(None, [facts["profile"], facts.get("variant")]))


def _plots(found: Sequence[Result], config: ReportConfig) -> list[DotPlot]:
    """Those of held-out recipes apart from others, CIDEr, which is no share of 100, and scores of parts of splits."""
    titles = ("Held-out scores", "Held-out CIDEr", "Other scores", "Other CIDEr")
    sides: dict[str, dict[tuple[str, str], list[Value]]] = {title: {} for title in titles}
    for number, result in enumerate(found):
        for score in result.scores:
            facts = score.facts
            if facts["value"] is None:
                continue
            low, high = [100 * end for end in facts["interval"]] if facts.get("interval") else (None, None)
            control = Images(facts["images"]).note
            value = Value(number, f"{result.name}, {_way(facts)}", 100 * facts["value"], low, high, facts["n"], control)
            side = "Held-out" if facts["recipe"] in config.partition.held_out else "Other"
            kind = "CIDEr" if facts["metric"] == "cider" else "scores"
            part = "" if facts["limit"] is None else f", the first {facts['limit']} alone"
            scores = sides.setdefault(f"{side} {kind}{part}", {})
            scores.setdefault((facts["recipe"], facts["metric"]), []).append(value)
    return [plot for title, scores in sides.items() if (plot := dot_plot(title, scores))]
