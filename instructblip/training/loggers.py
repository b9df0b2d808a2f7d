"""TensorBoard and Weights & Biases, where a run asks for them. The files of the run directory are always written.

Both go on across resumes: what TensorBoard holds of steps that are done again is purged, and W&B keeps the run's id,
which stands in `wandb_id`. Offline, W&B leaves one folder for every process; `wandb sync` puts them together.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from instructblip.config.training import TrainConfig
from instructblip.recipes import plain


def loggers(config: TrainConfig, run: Path, first: int) -> list[Logger]:
    """Those of `config.logger`, told the resolved config; steps from `first` on are new."""
    made: list[Logger] = []
    if config.logger.tensorboard:
        own = f".{first}"  # a file begun in the same second as another would replace it
        made.append(TensorBoardLogger(run, name="tensorboard", version="", purge_step=first + 1, filename_suffix=own))
    if config.logger.wandb:
        made.append(_wandb(config, run))
    return made


def log_text(logger: Logger, name: str, rows: list[dict[str, str]], step: int) -> None:
    """A table of texts, all rows with the same columns."""
    columns = list(rows[0])
    if isinstance(logger, WandbLogger):
        logger.log_text(name, columns, [list(row.values()) for row in rows], step=step)
    elif isinstance(logger, TensorBoardLogger):
        lines = [columns, ["---"] * len(columns), *(list(row.values()) for row in rows)]
        escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
        logger.experiment.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in escaped), step)


def close(logger: Logger, failed: bool) -> None:
    """Writes what is left. The next run of the same process, as in a sweep, opens its own."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish(exit_code=int(failed))
    else:
        logger.finalize("failed" if failed else "success")


def _wandb(config: TrainConfig, run: Path) -> WandbLogger:
    settings = config.logger
    return WandbLogger(
        name=run.name,
        id=run_id(run),
        save_dir=run,
        project=settings.project,
        entity=settings.entity,
        offline=settings.offline,
        group=settings.group or "+".join(config.experiment),
        job_type="train",
        tags=[*config.experiment, config.mixture.name, *settings.tags],
        config={name: plain(value) for name, value in vars(config).items()},
        allow_val_change=True,
    )


def run_id(run: Path) -> str:
    """W&B's name of the run, drawn once: another run of the same name elsewhere is another run."""
    path = run / "wandb_id"
    if not path.is_file():
        path.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
