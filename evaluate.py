"""Scores a run on the evaluation splits of one recipe or several.

python evaluate.py run=RUNDIR recipe=vsr
python evaluate.py run=NAME recipe=[vqav2,vsr] limit=500
python evaluate.py run=NAME recipe=held_out images=shuffled  the control: every question with another picture
python evaluate.py run=NAME recipe=vsr predict=false         scores the predictions that are there; no model
"""

from pathlib import Path

from instructblip.cli import program
from instructblip.config.evaluation import EvaluateConfig


@program("evaluate")
def main(config: EvaluateConfig) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from instructblip import recipes
    from instructblip.data.tables import Table, table_path
    from instructblip.evaluation.predictions import predictions_path
    from instructblip.evaluation.runs import data_folder, find_run, scores_table
    from instructblip.evaluation.scores import score

    run = find_run(config.run, Path(config.paths.runs))
    config.paths.data = config.paths.data or data_folder(run)
    data = Path(config.paths.data)
    names, absent = recipes.select(config.recipe, config.partition.groups())
    named = [recipes.load(name) for name in names]
    chosen = [recipe for recipe in named if recipe.evaluation] or named
    splits = [table_path(data, recipe.name, recipe.protocol(config.prompts).split) for recipe in chosen]
    tables = [Table(path) for path in splits]
    if config.predict:
        from instructblip.data.shards import MediaPool
        from instructblip.evaluation.predict import device, predict
        from instructblip.training.run import load_model

        loaded = load_model(run, device(config.device))
    scores = []
    for recipe, table in zip(chosen, tables, strict=True):
        path = predictions_path(run, recipe, table.sample(0), config)
        if config.predict:
            pools = {recipe.pool: MediaPool(data / "media" / recipe.pool)}
            predict(loaded, table, pools, recipe, recipe.protocol(config.prompts), config, path)
        scores.append(score(path, table, recipe, config))
    console = Console()
    console.print(scores_table((run.name, asdict(each)) for each in scores))
    if others := [recipe.name for recipe in named if recipe not in chosen]:
        console.print(f"no evaluation protocol for {', '.join(others)}")
    if absent:
        console.print(f"no recipe yet for {', '.join(absent)}")


if __name__ == "__main__":
    main()
