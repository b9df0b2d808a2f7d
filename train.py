"""Trains one run: `python train.py experiment=vicuna7b`; the run directory is `runs/<experiment>-s<seed>`."""

import faulthandler
import sys
from pathlib import Path

from instructblip.choices import Objective, Purpose
from instructblip.cli import program
from instructblip.config.training import TrainConfig
from instructblip.training.signals import Interrupted, Signals, watched


@program("train")
def main(config: TrainConfig) -> None:
    if config.purpose is Purpose.evaluate:
        from instructblip.training.released import place

        return print(place(config))
    if config.dry_run:
        from instructblip.training.plan.page import show

        return show(config)
    faulthandler.enable()  # the stack of a crash in native code, as when NCCL gives up on a lost process
    with watched(config.trainer.requeue) as signals:  # before anything heavy is imported
        from instructblip.training.strategy import check

        check(config)
        if config.selfcheck.lower() != "false":
            from instructblip.training.selfcheck import selfcheck

            sys.exit(0 if selfcheck(config) else 1)
        from instructblip.training.run import is_finished, opened

        if is_finished(config):
            return print(
                f"{Path(config.paths.runs) / config.name} is finished; evaluate.py run={config.name} scores it"
            )
        with opened(config) as run:
            fit(config, run, signals)


def fit(config: TrainConfig, run: Path, signals: Signals | None = None) -> None:
    """Trains what is left of the run, from its last good checkpoint. Raises Interrupted when a signal ends it."""
    from instructblip.models.instructblip import build
    from instructblip.models.stage1 import build_stage1
    from instructblip.models.tokenizers import is_encoder_decoder
    from instructblip.training.datamodule import StepData, collator, training_set
    from instructblip.training.module import TrainingModule
    from instructblip.training.objectives import objective
    from instructblip.training.ranks import rank
    from instructblip.training.run import begin
    from instructblip.training.trainer import trainer

    data = training_set(config)
    stage1 = config.objective is Objective.stage1
    model = build_stage1(config.model, config.seed) if stage1 else build(config.model, config.seed)
    steps = StepData(config, data, collator(config, is_encoder_decoder(config.model.llm)))
    aim = objective(config, model, data.names)
    module = TrainingModule(model, config, aim, len(data.names), signals or Signals())
    if rank() == 0:
        begin(run, config, steps.facts())
    trainer(config, run, steps, aim.names).fit(module, steps)
    if module.stopped_by and module.done < config.steps:
        raise Interrupted(module.stopped_by)


if __name__ == "__main__":
    main()
