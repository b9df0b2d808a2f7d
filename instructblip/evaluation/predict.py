"""From trials to predictions.jsonl: batches dealt to processes, asked one after another, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.shards import MediaPool
from instructblip.data.tables import manifest_hash
from instructblip.evaluation.answering import Vocabulary, answer, decoding, family, tokenized
from instructblip.evaluation.controls import asked
from instructblip.evaluation.features import Features
from instructblip.evaluation.parts import Parts, Share
from instructblip.evaluation.predictions import Conditions, append
from instructblip.evaluation.questions import Question, by_length
from instructblip.evaluation.trials import Trial
from instructblip.models.loaded import Loaded
from instructblip.protocols import Mode

GIB = 2**30


@dataclass(frozen=True)
class Work:
    """A trial with its batches, the files they go to, and the numbers of those that this process has to ask."""

    trial: Trial
    batches: list[list[Question]]
    parts: Parts
    left: list[int]
    vocabulary: Vocabulary | None


def predict(
    loaded: Loaded, trials: Sequence[Trial], pools: Mapping[str, MediaPool], config: EvaluateConfig, results: Path,
    share: Share,
) -> list[Trial]:  # fmt: skip
    """Writes this process's share of one prediction for every Sample of each trial, all of one recipe.

    Returns the trials that are ready to be scored here: those this process put together, and of those that were
    complete before, the first process has all. Batch by batch in every wording, so that pictures are encoded once.
    Raises ValueError for a picture that cannot be read, a file that was written under other conditions, and a model
    whose scores are not finite.
    """
    with ExitStack() as held:
        works = [begun(loaded, trial, config, results, share, held) for trial in trials]
        complete = [work.trial for work in works if work.parts.is_joined() and share.rank == 0]
        queue = sorted((index, number) for number, work in enumerate(works) for index in work.left)
        features = Features(loaded.model, loaded.config.vision.image_size, int(config.feature_cache_gib * GIB))
        total = sum(len(works[number].batches[index]) for index, number in queue)
        with progress(works[0].trial.recipe.name, total, share) as advance:
            for index, number in queue:
                advance(ask(loaded, works[number], index, pools, features, share))
        return [work.trial for work in works if work.parts.join() or work.trial in complete]


def begun(loaded: Loaded, trial: Trial, config: EvaluateConfig, results: Path, share: Share, held: ExitStack) -> Work:
    """The trial's batches and files, this process's part of them held until `held` is closed."""
    batches = by_length(asked(trial, config), config.batch_size)
    uids = [[question.uid for question in batch] for batch in batches]
    parts = Parts(trial.path(results, config), describe(loaded, trial, config), uids)
    held.enter_context(parts.writing(share.rank))
    vocabulary = tokenized(loaded, trial.vocabulary) if trial.vocabulary else None
    return Work(trial, batches, parts, parts.left(share), vocabulary)


def ask(
    loaded: Loaded, work: Work, index: int, pools: Mapping[str, MediaPool], features: Features, share: Share
) -> int:
    """Asks one batch and writes it; returns how many questions that were."""
    batch, conditions = work.batches[index], work.parts.conditions
    table, mode = work.trial.table, work.trial.protocol.mode
    settings = (mode, conditions.decoding, conditions.llm_limit, work.vocabulary, features)
    append(work.parts.part(share.rank), conditions, answer(loaded, table, pools, batch, *settings))
    return len(batch)


def device(name: str, share: Share) -> str:
    """`auto` is this process's GPU where there is one. Raises ValueError for what PyTorch does not know."""
    if name == "auto":
        return f"cuda:{share.local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise ValueError(f"device={name}: {str(error).splitlines()[0]}") from error


def describe(loaded: Loaded, trial: Trial, config: EvaluateConfig) -> Conditions:
    """All that the predictions depend on."""
    generates = trial.protocol.mode is Mode.generate
    return Conditions(
        recipe=trial.recipe.name,
        profile=trial.profile,
        variant=trial.variant,
        protocol=trial.hash,
        mode=trial.protocol.mode.value,
        decoding=decoding(trial.protocol.decoding, family(loaded)) if generates else {},
        checkpoint=loaded.checkpoint,
        manifest=manifest_hash(Path(config.paths.data), trial.recipe.name, trial.protocol.split),
        images=config.images.value,
        batch_size=config.batch_size,
        limit=config.limit,
        llm_limit=config.eval_llm_limit,
    )


@contextmanager
def progress(name: str, total: int, share: Share) -> Iterator[Callable[[int], None]]:
    """A bar over this process's questions with their rate and the time left; the first process alone shows one."""
    rate = TextColumn("{task.fields[rate]:.1f}/s")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, disable=share.rank != 0 or not total) as bar:
        label = name if share.world == 1 else f"{name} (1 of {share.world} processes)"
        task = bar.add_task(label, total=total, rate=0.0)
        yield lambda count: bar.update(task, advance=count, rate=bar.tasks[0].speed or 0.0)
