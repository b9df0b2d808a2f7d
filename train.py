"""Trains one run: `python train.py experiment=vicuna7b`; the run directory is `runs/<experiment>-s<seed>`."""

from pathlib import Path

from instructblip.cli import program
from instructblip.config.training import TrainConfig


@program("train")
def main(config: TrainConfig) -> None:
    if config.dry_run:
        from instructblip.training.plan.page import show

        return show(config)
    from instructblip.training.run import is_finished, opened

    if is_finished(config):
        return print(f"{Path(config.paths.runs) / config.name} is finished; evaluate.py run={config.name} scores it")
    with opened(config) as run:
        fit(config, run)


def fit(config: TrainConfig, run: Path) -> None:
    """Trains what is left of the run, from its last checkpoint."""
    from instructblip.models.instructblip import build
    from instructblip.training.checkpoint import last_checkpoint
    from instructblip.training.datamodule import StepData, collator, training_set
    from instructblip.training.module import TrainingModule
    from instructblip.training.objectives import objective
    from instructblip.training.run import begin, rank
    from instructblip.training.trainer import trainer

    data = training_set(config)
    model = build(config.model, config.seed)
    resumed = last_checkpoint(run)
    if resumed:
        resumed.load_weights(model)
    steps = StepData(
        config,
        data,
        collator(config, model.llm.model.config.is_encoder_decoder),
        resumed.step if resumed else 0,
    )
    aim = objective(config, model, data.names)
    module = TrainingModule(model, config, aim, len(data.names), resumed.load_optimizer() if resumed else None)
    if rank() == 0:
        begin(run, config, steps.facts())
    trainer(config, run, steps, aim.names, resumed).fit(module, steps)


if __name__ == "__main__":
    main()
