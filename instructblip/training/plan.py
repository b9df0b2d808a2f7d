"""`dry_run=true`: what a run would do, and what is missing to do it, without loading anything heavy."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from instructblip import recipes as recipe_files
from instructblip.config.training import TrainConfig
from instructblip.data.explain import explanation
from instructblip.data.shares import incomplete, shares
from instructblip.models.paths import absent_paths
from instructblip.recipes import Recipe


def show(config: TrainConfig) -> None:
    """Prints steps, batch, schedule, mixture with expected epochs, and everything that is not there yet."""
    console = Console()
    names, absent = recipe_files.select(config.mixture.recipes, config.partition.groups())
    chosen = [recipe_files.load(name) for name in names]
    console.print(_figures(config))
    if not absent:
        asked, data = shares(chosen, config.mixture), Path(config.paths.data)
        console.print(explanation(asked, config.mixture, config.steps, config.batch_size, data))
    lacking = missing(config, chosen, absent)
    console.print(
        "\n".join(["missing:", *(f"  {line}" for line in lacking)]) if lacking else "nothing is missing",
        soft_wrap=True,
    )


def missing(config: TrainConfig, chosen: list[Recipe], absent: list[str]) -> list[str]:
    """Recipes, tables, tokenizers and weights a run needs and does not find, each with its setting or command."""
    lines = [f"recipe {name}: no data_recipes/{name}.yaml" for name in absent]
    if not absent and (lacking := incomplete(shares(chosen, config.mixture), config.mixture, Path(config.paths.data))):
        lines.append(lacking)
    for recipe in chosen:
        split = recipe.training_split(config.mixture.splits)
        path = Path(config.paths.data) / "tables" / recipe.table / f"{split}.arrow"
        if not path.is_file():
            lines.append(f"table {path}: python prepare.py recipe={recipe.table}")
    model = config.model
    wanted = {"model.qformer.tokenizer": model.qformer.tokenizer, "model.llm.tokenizer": model.llm.tokenizer}
    lines += [f"{setting}={path}" for setting, path in wanted.items() if not Path(path).exists()]
    return lines + absent_paths(model)


def _figures(config: TrainConfig) -> Table:
    optim, table = config.optim, Table("run", config.name)
    groups = config.batch_size // config.group_size
    rows = {
        "model": config.model.name,
        "steps": f"{config.steps:,}",
        "global batch": f"{config.batch_size} samples = {groups} groups of {config.group_size}",
        "samples": f"{config.steps * config.batch_size:,}",
        "learning rate": f"{optim.warmup_lr:g} to {optim.lr:g} in {optim.warmup_steps:,} steps, "
        f"cosine to {optim.min_lr:g}",
        "AdamW": f"betas {optim.betas}, weight decay {optim.weight_decay}",
        "loss": f"mean over {config.loss.reduction.value}s",
        "mixture": f"{config.mixture.name}: {config.mixture.weighting.value}, {config.mixture.draw.value} draws",
        "devices": f"{config.trainer.num_nodes} x {config.trainer.devices} {config.trainer.accelerator}, "
        f"micro-batch {config.trainer.micro_batch_size}, {config.trainer.precision.value}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
