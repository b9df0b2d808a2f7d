"""Shows every run and every score there is, or one of the paper's tables filled with them.

python report.py                        also runs=[miniature-s42]
python report.py table=1                published, ours, difference, interval, verdict; also 2 to 5, figure2, all, ...
python report.py html=true              tables, plots, curves, ledgers and examples as one HTML file
python report.py compare=[RUN,hf:DIR] set=miniature    their answers side by side, as one HTML file
python report.py lens=true run=RUN image=FILE instructions=FILE    where it looks under each line: a page and a PNG
python report.py lens=true run=RUN scenes=200 against=RUN2         what these maps mean, on the embedded world
"""

from pathlib import Path

from rich.console import Console

from instructblip.cli import program
from instructblip.config.evaluation import ReportConfig


@program("report")
def main(config: ReportConfig) -> None:
    console = Console()
    if config.lens:
        look_inside(config, console)
    elif config.html or config.compare:
        write_page(config, console)
    elif config.table is None:
        show_runs(config, console)
    else:
        show_tables(config, console)


def show_runs(config: ReportConfig, console: Console) -> None:
    from instructblip.evaluation.runs import overview
    from instructblip.evaluation.tables.report import standings
    from instructblip.evaluation.tables.results import results

    place = Path(config.paths.runs)
    console.print(*overview(config.runs, place), *standings(results(config.runs, place), config.draws), sep="\n")


def show_tables(config: ReportConfig, console: Console) -> None:
    from instructblip.evaluation.tables.rendering import shown
    from instructblip.evaluation.tables.report import outdated, pages, write
    from instructblip.evaluation.tables.results import results

    found = results(config.runs, Path(config.paths.runs))
    for page in pages(config, found):
        for sheet in page.sheets:
            console.print(*shown(sheet), sep="\n")
        written = write(page, Path(config.paths.runs) / "report")
        console.out("Written:", *written, end="\n\n", highlight=False)
    for line in outdated(found):
        console.out(line, highlight=False)


def write_page(config: ReportConfig, console: Console) -> None:
    place = Path(config.paths.runs)
    if config.compare:
        from instructblip.evaluation.qualitative import compare

        path = compare(config, place / "report")
    else:
        from instructblip.evaluation.pages.page import write_report
        from instructblip.evaluation.tables.report import standings
        from instructblip.evaluation.tables.results import results

        found = results(config.runs, place)
        path = write_report(config, found, place / "report")
        console.print(*standings(found, config.draws), sep="\n")
    console.out(f"Written: {path}", highlight=False)


def look_inside(config: ReportConfig, console: Console) -> None:
    from instructblip.evaluation.lens.looking import look_inside

    console.out(*look_inside(config, Path(config.paths.runs) / "report"), sep="\n", highlight=False)


if __name__ == "__main__":
    main()
