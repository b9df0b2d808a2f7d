"""Shows every run and every score there is.

python report.py
python report.py runs=[miniature-s42]
"""

from pathlib import Path

from instructblip.cli import program
from instructblip.config.evaluation import ReportConfig


@program("report")
def main(config: ReportConfig) -> None:
    from rich.console import Console

    from instructblip.evaluation import runs

    console = Console()
    place = Path(config.paths.runs)
    folders = [runs.find_run(name, place) for name in config.runs] or runs.run_folders(place)
    if not folders:
        console.print(f"No runs in {place}. Train one with `python train.py experiment=miniature`.")
        return
    console.print(runs.runs_table(runs.read_run(folder) for folder in folders))
    scores = [(folder.name, facts) for folder in folders for facts in runs.read_scores(folder)]
    if not scores:
        console.print(f"No scores yet. Evaluate with `python evaluate.py run={folders[0].name} recipe=vsr`.")
        return
    console.print(runs.scores_table(scores))


if __name__ == "__main__":
    main()
