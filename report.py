"""Shows every run and every score there is, or one of the paper's tables filled with them.

python report.py
python report.py runs=[miniature-s42]
python report.py table=1                published, ours, difference, interval and verdict of every cell
python report.py table=all              1 to 5, figure2, figure4, claims, prompts; as files in paths.runs/report
python report.py html=true              tables, plots, curves, ledgers and examples as one HTML file
python report.py compare=[RUN,hf:DIR] set=miniature    their answers side by side, as one HTML file
"""

from pathlib import Path

from rich.console import Console

from instructblip.cli import program
from instructblip.config.evaluation import ReportConfig


@program("report")
def main(config: ReportConfig) -> None:
    console = Console()
    if config.html or config.compare:
        write_page(config, console)
    elif config.table is None:
        show_runs(config, console)
    else:
        show_tables(config, console)


def show_runs(config: ReportConfig, console: Console) -> None:
    from instructblip.evaluation import runs

    place = Path(config.paths.runs)
    folders = [runs.find_run(name, place) for name in config.runs] or runs.run_folders(place)
    if not folders:
        console.print(f"No runs in {place}. Train one with `python train.py experiment=miniature`.")
        return
    console.print(runs.runs_table(runs.read_run(folder) for folder in folders))
    scores = [(runs.name_of(folder), facts) for folder in folders for facts in runs.read_scores(folder)]
    if not scores:
        console.print(f"No scores yet. Evaluate with `python evaluate.py run={folders[0].name} recipe=vsr`.")
        return
    console.print(runs.scores_table(scores))


def show_tables(config: ReportConfig, console: Console) -> None:
    from instructblip.evaluation.tables.rendering import terminal
    from instructblip.evaluation.tables.report import chosen, outdated, pages, write
    from instructblip.evaluation.tables.results import results

    chosen(str(config.table))
    found = results(config.runs, Path(config.paths.runs))
    for page in pages(config, found):
        for sheet in page.sheets:
            console.print(terminal(sheet))
            for note in sheet.notes:
                console.print(note, markup=False, highlight=False)
        written = write(page, Path(config.paths.runs) / "report")
        console.print(f"Written: {' '.join(map(str, written))}\n", markup=False, highlight=False)
    for line in outdated(found):
        console.print(line, markup=False, highlight=False)


def write_page(config: ReportConfig, console: Console) -> None:
    place = Path(config.paths.runs)
    if config.compare:
        from instructblip.evaluation.qualitative import compare

        path = compare(config, place / "report")
    else:
        from instructblip.evaluation.pages.page import write_report
        from instructblip.evaluation.tables.results import results

        path = write_report(config, results(config.runs, place), place / "report")
    console.print(f"Written: {path}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
