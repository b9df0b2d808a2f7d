"""From a run and a table to predictions.jsonl: batches asked one after another, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instructblip.choices import Images
from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table, manifest_hash
from instructblip.evaluation.answering import answer, by_length, decoding, family, render, shuffled
from instructblip.evaluation.measures import metric
from instructblip.evaluation.predictions import Conditions, append, protocol_hash, resume
from instructblip.files import lock
from instructblip.models.loaded import Loaded
from instructblip.protocols import Evaluation, Mode
from instructblip.recipes import Recipe

SHUFFLE_SEED = 0  # of the control in which no question keeps its picture


def predict(
    loaded: Loaded, table: Table, pools: Mapping[str, MediaPool], recipe: Recipe, protocol: Evaluation,
    config: EvaluateConfig, path: Path,
) -> None:  # fmt: skip
    """Writes one prediction for every Sample of `table` into `path`, going on after the batches it holds.

    Raises ValueError for an unlabelled split, a picture that cannot be read, an unknown metric, a file that
    was written under other conditions, and a model whose scores are not finite.
    """
    metric(protocol.metric)
    questions = render(table, protocol.prompts[config.prompts], config.limit)
    if config.images is Images.shuffled:
        questions = shuffled(questions, SHUFFLE_SEED)
    batches = by_length(questions, config.batch_size)
    conditions = describe(loaded, table, recipe, protocol, config)
    with lock(path.parent.with_name(f".{path.parent.name}.lock"), str(path)):
        done = resume(path, conditions, [[question.uid for question in batch] for batch in batches])
        with progress(recipe.name, sum(map(len, batches[:done])), len(questions)) as advance:
            for batch in batches[done:]:
                append(
                    path,
                    conditions,
                    answer(loaded, table, pools, batch, protocol.mode, conditions.decoding, conditions.llm_limit),
                )
                advance(len(batch))


def device(name: str) -> str:
    """`auto` is the GPU where there is one. Raises ValueError for what PyTorch does not know."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise ValueError(f"device={name}: {str(error).splitlines()[0]}") from error


def describe(loaded: Loaded, table: Table, recipe: Recipe, protocol: Evaluation, config: EvaluateConfig) -> Conditions:
    """All that the predictions depend on."""
    generates = protocol.mode is Mode.generate
    return Conditions(
        recipe=recipe.name,
        profile=config.prompts,
        protocol=protocol_hash(protocol, config.prompts, table.sample(0)),
        mode=protocol.mode.value,
        decoding=decoding(protocol.decoding, family(loaded)) if generates else {},
        checkpoint=loaded.checkpoint,
        manifest=manifest_hash(Path(config.paths.data), recipe.name, protocol.split),
        images=config.images.value,
        batch_size=config.batch_size,
        limit=config.limit,
        llm_limit=config.eval_llm_limit,
    )


@contextmanager
def progress(name: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with questions a second and the time left; yields what moves it on."""
    rate = TextColumn("{task.fields[rate]:.1f}/s")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        rate,
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(name, total=total, completed=done, rate=0.0)
        yield lambda count: bar.update(task, advance=count, rate=bar.tasks[0].speed or 0.0)
