"""Scores a run on the evaluation splits of one recipe or several.

python evaluate.py run=RUNDIR recipe=vsr
python evaluate.py run=NAME recipe=held_out                  also [vqav2,vsr] limit=500 variant=NAME prompts=lavis
torchrun --nproc_per_node 8 evaluate.py run=NAME recipe=held_out
python evaluate.py checkpoint=DIR recipe=held_out paths.data=DIR          of others; a LAVIS file with config=YAML
python evaluate.py run=NAME recipe=gqa prompts=all           every wording of the family: mean, best, worst
python evaluate.py run=NAME recipe=held_out images=shuffled  a control: every question with another picture;
                                                             also deranged, none (floors), told (the ceiling)
python evaluate.py run=NAME recipe=held_out constant=true    the majority floor: the best constant answer; no model
python evaluate.py run=NAME recipe=held_out missing=true     leaves out what has its scores
python evaluate.py run=NAME recipe=vsr predict=false         scores the predictions that are there; no model
"""

from instructblip.cli import program
from instructblip.config.evaluation import EvaluateConfig


@program("evaluate")
def main(config: EvaluateConfig) -> None:
    from instructblip.evaluation.subject import subject

    asked = subject(config)  # before anything heavy is imported
    from dataclasses import asdict

    from rich.console import Console

    from instructblip.evaluation.answered import answering, left
    from instructblip.evaluation.runs import scores_table
    from instructblip.evaluation.scores import score, submission_path
    from instructblip.evaluation.sensitivity import sensitivities, sensitivity_table
    from instructblip.evaluation.trials import planned

    config.paths.data = asked.prepared()
    recipes, notes = planned(config)
    if not (recipes := left(recipes, asked, config)):
        return print(f"{asked.name}: all of it is scored")
    answered, scores = answering(asked, config), []
    for trials in recipes:
        for trial in answered(trials):
            if found := score(asked.results, trial, config):
                scores.append(asdict(found))
            if (submission := submission_path(trial.path(asked.results, config))).is_file():
                notes.append(f"for the server of {trial.recipe.name}: {submission}")
    console = Console()
    if scores:
        console.print(scores_table((asked.name, facts) for facts in scores))
    if by_wording := sensitivities(scores):
        console.print(sensitivity_table(by_wording))
    for note in notes:
        console.print(note, soft_wrap=True)


if __name__ == "__main__":
    main()
