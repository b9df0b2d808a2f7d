"""What a run needs and does not find."""

from __future__ import annotations

from pathlib import Path

from instructblip.choices import Objective
from instructblip.config.training import TrainConfig
from instructblip.data.shares import incomplete, shares
from instructblip.models.paths import absent_paths, absent_stage1_paths
from instructblip.recipes import Recipe


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
    stage1 = config.objective is Objective.stage1
    if stage1:
        del wanted["model.llm.tokenizer"]
    lines += [f"{setting}={path}" for setting, path in wanted.items() if not Path(path).exists()]
    return lines + (absent_stage1_paths(model) if stage1 else absent_paths(model))
