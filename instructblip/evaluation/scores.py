"""From predictions.jsonl and the table to scores.json: no model, no GPU, as often as one likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from instructblip.choices import Images
from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.sample import Sample
from instructblip.data.tables import manifest_hash
from instructblip.data.templates import fill
from instructblip.evaluation.controls import read_scenes, told
from instructblip.evaluation.measures import metric
from instructblip.evaluation.predictions import Conditions, Prediction, labelled, read, rows_of
from instructblip.evaluation.statistics import image_of, interval
from instructblip.evaluation.submissions import write_submission
from instructblip.evaluation.trials import Trial
from instructblip.files import sha256, write_json
from instructblip.recipes import fingerprint
from instructblip.revision import revision

Pairs = list[tuple[Prediction, Sample]]


@dataclass(frozen=True, slots=True)
class Scores:
    """One number, and what it is a number of."""

    recipe: str
    profile: str  # of the prompts, or the id of a template
    variant: str | None
    wording: str
    split: str
    metric: str
    value: float | None  # 0..1, CIDEr 0..10; None: undefined
    n: int  # Samples that count
    interval: list[float] | None  # 95 % over `items`, clustered by picture; None: it cannot be drawn
    extra: dict[str, float | None]  # values of parts of the split, such as `domain:near-domain`
    truncated: int  # prompts of which the Q-Former or the language model read only the end
    images: str
    limit: int | None
    llm_limit: int | None
    protocol: str  # hashes from here on
    recipe_hash: str
    manifest: str  # of the prepared table
    checkpoint: str
    predictions: str  # of the file
    code: str  # commit of the code that scored


def score(results: Path, trial: Trial, config: EvaluateConfig) -> Scores | None:
    """Scores the predictions of a trial and writes scores.json beside them, or nothing.

    Predictions of an unlabelled split, and with `submit=true` any, become submission.json in the form of the
    recipe's server; of an unlabelled split there is no score.
    Raises ValueError, and writes nothing, when the predictions are of another protocol, are not exactly one a
    Sample, have other prompts than the table gives now, or cannot be scored (NaN, no form for a server).
    """
    path = trial.path(results, config)
    conditions, predictions = read(path)
    _require_protocol(path, conditions, trial, config)
    samples = [trial.table.sample(row) for row in rows_of(len(trial.table), config.limit)]
    by_uid = {prediction.uid: prediction for prediction in predictions}
    _require_each_once(path, [sample.uid for sample in samples], [each.uid for each in predictions])
    pairs = [(by_uid[sample.uid], sample) for sample in samples]
    _require_prompts(path, pairs, trial, config)
    known = labelled(samples)
    if config.submit or not known:
        if trial.protocol.submission is None:
            raise ValueError(f"{trial.recipe.name}: no server form is known for split {trial.protocol.split!r}")
        write_submission(submission_path(path), trial.protocol.submission, pairs)
    if not known:
        return None
    scores = _measured(pairs, trial, config, conditions, sha256(path))
    write_json(path.with_name("scores.json"), asdict(scores))
    return scores


def submission_path(predictions: Path) -> Path:
    return predictions.with_name("submission.json")


def _measured(pairs: Pairs, trial: Trial, config: EvaluateConfig, conditions: Conditions, predictions: str) -> Scores:
    measured = metric(trial.protocol.metric)(pairs)
    return Scores(
        recipe=trial.recipe.name,
        profile=trial.profile,
        variant=trial.variant,
        wording=trial.wording,
        split=trial.protocol.split,
        metric=trial.protocol.metric,
        value=measured.value,
        n=measured.n,
        interval=list(found) if (found := interval(measured, [image_of(sample) for _, sample in pairs])) else None,
        extra=measured.extra,
        truncated=sum(prediction.truncated for prediction, _ in pairs),
        images=conditions.images,
        limit=conditions.limit,
        llm_limit=conditions.llm_limit,
        protocol=conditions.protocol,
        recipe_hash=fingerprint(trial.recipe),
        manifest=manifest_hash(Path(config.paths.data), trial.recipe.name, trial.protocol.split),
        checkpoint=conditions.checkpoint,
        predictions=predictions,
        code=revision(),
    )


def _require_protocol(path: Path, conditions: Conditions, trial: Trial, config: EvaluateConfig) -> None:
    wanted = {
        "recipe": trial.recipe.name,
        "profile": trial.profile,
        "variant": trial.variant,
        "protocol": trial.hash,
        "images": config.images.value,
        "limit": config.limit,
        "llm_limit": config.eval_llm_limit,
    }
    found = {name: getattr(conditions, name) for name in wanted}
    if other := [f"{name} {found[name]!r}, not {value!r}" for name, value in wanted.items() if found[name] != value]:
        raise ValueError(f"{path} holds predictions of another protocol: {'; '.join(other)}. Predict again.")


def _require_each_once(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Every uid of the table predicted once, and no other."""
    counts = Counter(found)
    wrong = {
        "missing": [uid for uid in wanted if uid not in counts],
        "predicted twice": [uid for uid, count in counts.items() if count > 1],
        "not in the table": sorted(set(counts) - set(wanted)),
    }
    if any(wrong.values()):
        told = [f"{len(uids)} {what} (first {uids[0]})" for what, uids in wrong.items() if uids]
        raise ValueError(
            f"{path}: {', '.join(told)}, where {len(wanted)} Samples are evaluated. "
            f"Finish an interrupted file with predict=true; delete any other."
        )


def _require_prompts(path: Path, pairs: Pairs, trial: Trial, config: EvaluateConfig) -> None:
    """The questions, and scenes told with them, have not changed under their uids since they were asked."""
    prompts = [fill(trial.wording, sample) for _, sample in pairs]
    if config.images is Images.told:
        scenes = read_scenes(Path(config.paths.data))
        prompts = [told(text, sample.shown, scenes) for text, (_, sample) in zip(prompts, pairs, strict=True)]
    if other := [
        sample.uid for (prediction, sample), text in zip(pairs, prompts, strict=True) if prediction.prompt != text
    ]:
        raise ValueError(
            f"{path}: {len(other)} of {len(pairs)} prompts are not what the table gives now "
            f"(first {other[0]}). The data were prepared anew; delete the file and predict again."
        )
