"""A mixture as a table a person can check: from each dataset's size to its probability and its epochs over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from instructblip.choices import Weighting
from instructblip.config.data import MixtureConfig
from instructblip.config.preparing import PrepareConfig
from instructblip.data.shares import Share, incomplete, members, rows, shares, temperature
from instructblip.files import read_yaml
from instructblip.names import require

MIXTURES = Path(__file__).resolve().parents[2] / "conf" / "mixture"
COLUMNS = ("recipe", "size", "unit", "root", "factor", "p", "rows", "epochs")
OURS = "*"
WORDS = ("recipe", "unit")


def explain(name: str, config: PrepareConfig) -> None:
    """Prints the named mixture over a run of `config.steps` and `config.batch_size`; no data need be there.

    Raises ValueError listing the mixtures there are, or naming recipes of it that have no file.
    """
    mixture = named(name)
    chosen, absent = members(mixture, config.partition.groups())
    if absent:
        raise ValueError(f"mixture {name} has no recipe yet for {', '.join(absent)}")
    asked = shares(chosen, mixture)
    data = Path(config.paths.data)
    console = Console()
    console.print(explanation(asked, mixture, config.steps, config.batch_size, data))
    console.print(incomplete(asked, mixture, data) or "", soft_wrap=True, highlight=False)


def named(name: str) -> MixtureConfig:
    """A mixture of `conf/mixture`. Raises ValueError with the nearest name, or naming the file and what is wrong."""
    require(name, [path.stem for path in MIXTURES.glob("*.yaml")], "mixture")
    return read_yaml(MIXTURES / f"{name}.yaml", MixtureConfig)


def explanation(asked: Sequence[Share], mixture: MixtureConfig, steps: int, batch_size: int, data: Path) -> Group:
    """The table, and below it what its numbers mean; a split is named where it is not the recipe's first.

    Epochs are over the rows of the split, as prepared or else as published; where neither is known over S_d, marked ~.
    """
    samples = steps * batch_size
    title = f"mixture {mixture.name}: {steps:,} steps of {batch_size} = {samples:,} samples"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=name == "recipe", overflow="fold")
    counts = [rows(share, mixture, data) for share in asked]
    for share, count in zip(asked, counts, strict=True):
        line = _line(share, count, samples)
        table.add_row(*(line[name] for name in COLUMNS))
    return Group(table, Text("\n".join(_notes(mixture, asked, unknown=None in counts))))


def _line(share: Share, count: int | None, samples: int) -> Mapping[str, str]:
    drawn = share.probability * samples
    return {
        "recipe": share.recipe.name if share.split == share.recipe.train[0] else f"{share.recipe.name}/{share.split}",
        "size": f"{share.sampling.size:,}",
        "unit": share.sampling.unit,
        "root": f"{share.root:,.1f}",
        "factor": f"{share.factor:g}" + (OURS if share.factor != 1 else " "),
        "p": f"{share.probability:.4f}",
        "rows": f"{count:,}" if count else "?",
        "epochs": f"{drawn / count:.2f}" if count else f"~{drawn / share.sampling.size:.2f}",
    }


def _notes(mixture: MixtureConfig, asked: Sequence[Share], unknown: bool) -> list[str]:
    power = {Weighting.sqrt: "sqrt(size)", Weighting.proportional: "size", Weighting.uniform: "1"}
    root = power.get(mixture.weighting) or f"size^(1/{temperature(mixture):g})"
    lines = [f"root = {root} ({mixture.weighting.value}); p = root x factor / sum; draws: {mixture.draw.value}"]
    if any(share.factor != 1 for share in asked):
        lines.append(f"{OURS} ours: the paper corrects A-OKVQA and OKVQA by hand and publishes no values")
    if unknown:
        lines.append("~ over the size, where the rows of a split are neither prepared nor published")
    if mixture.sizes:
        lines.append(f"sizes of this mixture instead of the recipes': {', '.join(sorted(mixture.sizes))}")
    return lines
