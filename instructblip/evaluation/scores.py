"""From predictions.jsonl and the table to scores.json: no model, no GPU, as often as one likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.sample import Sample
from instructblip.data.tables import Table, manifest_hash
from instructblip.data.templates import fill
from instructblip.evaluation.measures import metric
from instructblip.evaluation.predictions import (
    Conditions,
    Prediction,
    protocol_hash,
    read,
    rows_of,
)
from instructblip.files import sha256, write_json
from instructblip.recipes import Recipe, fingerprint


@dataclass(frozen=True, slots=True)
class Scores:
    """One number, and what it is a number of."""

    recipe: str
    profile: str
    metric: str
    value: float | None  # 0..1, CIDEr 0..10; None: undefined
    n: int  # Samples that count
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


def score(path: Path, table: Table, recipe: Recipe, config: EvaluateConfig) -> Scores:
    """Scores the predictions in `path` against `table` and writes scores.json beside them, or nothing.

    Raises ValueError, and writes nothing, when the predictions are of another protocol, are not exactly one a
    Sample, have other prompts than the table gives now, or cannot be scored (NaN, no label).
    """
    protocol = recipe.protocol(config.prompts)
    conditions, predictions = read(path)
    expected = protocol_hash(protocol, config.prompts, table.sample(0))
    _require_protocol(path, conditions, recipe.name, expected, config)
    samples = [table.sample(row) for row in rows_of(len(table), config.limit)]
    by_uid = {prediction.uid: prediction for prediction in predictions}
    _require_each_once(path, [sample.uid for sample in samples], [each.uid for each in predictions])
    pairs = [(by_uid[sample.uid], sample) for sample in samples]
    _require_prompts(path, pairs, protocol.prompts[config.prompts])
    measured = metric(protocol.metric)(pairs)
    scores = Scores(
        recipe=recipe.name,
        profile=config.prompts,
        metric=protocol.metric,
        value=measured.value,
        n=measured.n,
        extra=measured.extra,
        truncated=sum(prediction.truncated for prediction in predictions),
        images=conditions.images,
        limit=conditions.limit,
        llm_limit=conditions.llm_limit,
        protocol=conditions.protocol,
        recipe_hash=fingerprint(recipe),
        manifest=manifest_hash(Path(config.paths.data), recipe.name, protocol.split),
        checkpoint=conditions.checkpoint,
        predictions=sha256(path),
    )
    write_json(path.with_name("scores.json"), asdict(scores))
    return scores


def _require_protocol(path: Path, conditions: Conditions, recipe: str, protocol: str, config: EvaluateConfig) -> None:
    names = ("recipe", "profile", "protocol", "images", "limit", "llm_limit")
    found = tuple(getattr(conditions, name) for name in names)
    wanted = (recipe, config.prompts, protocol, config.images.value, config.limit, config.eval_llm_limit)
    if found != wanted:
        pairs = [f"{n} {f!r}, not {w!r}" for n, f, w in zip(names, found, wanted, strict=True) if f != w]
        raise ValueError(f"{path} holds predictions of another protocol: {'; '.join(pairs)}. Predict again.")


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


def _require_prompts(path: Path, pairs: Sequence[tuple[Prediction, Sample]], prompt: str) -> None:
    """The questions have not changed under their uids since they were asked."""
    if other := [sample.uid for prediction, sample in pairs if prediction.prompt != fill(prompt, sample)]:
        raise ValueError(
            f"{path}: {len(other)} of {len(pairs)} prompts are not what the table gives now "
            f"(first {other[0]}). The data were prepared anew; delete the file and predict again."
        )
