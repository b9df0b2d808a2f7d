"""Where predictions come from: the model, the best constant answer, or an evaluation before this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from instructblip.choices import Images
from instructblip.config.evaluation import EvaluateConfig
from instructblip.evaluation.subject import Subject

if TYPE_CHECKING:  # nothing heavy before a config is known to be good
    from instructblip.evaluation.trials import Trial


def left(recipes: list[list[Trial]], asked: Subject, config: EvaluateConfig) -> list[list[Trial]]:
    """All trials of each recipe; with `missing=true` those that have no scores.json, and no recipe without any."""
    if not config.missing:
        return recipes
    unscored = [
        [trial for trial in trials if not trial.path(asked.results, config).with_name("scores.json").is_file()]
        for trials in recipes
    ]
    return [trials for trials in unscored if trials]


def answering(asked: Subject, config: EvaluateConfig) -> Callable[[list[Trial]], list[Trial]]:
    """Writes the predictions of a recipe's trials, by the model or a constant, and returns those to be scored."""
    if config.constant:
        from instructblip.evaluation.constants import constant, tuned

        known, config.images = tuned(asked, config), Images.none
        return lambda trials: [constant(trial, config, asked.results, known) for trial in trials]
    if not config.predict:
        return lambda trials: trials
    from instructblip.data.shards import MediaPool
    from instructblip.evaluation.parts import Share
    from instructblip.evaluation.predict import device, predict

    share = Share.of_environment()
    loaded, media = asked.load(config, device(config.device, share)), Path(config.paths.data) / "media"

    def by_model(trials: list[Trial]) -> list[Trial]:
        pool = trials[0].recipe.pool
        return predict(loaded, trials, {pool: MediaPool(media / pool)}, config, asked.results, share)

    return by_model
