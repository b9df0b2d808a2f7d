"""The majority floor: the best that one constant answer for all questions of a kind would score.

What a run was tuned on tells its constants; where no tuned answer fits, the evaluated split's own most frequent one
stands in, which no constant can beat by much. They are chosen by their score, so the floor is rather too high than too
low. It needs no model; its predictions are scored like those of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from instructblip.choices import Images
from instructblip.config.data import MixtureConfig, PartitionConfig
from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.sample import Form, Sample
from instructblip.data.shares import members
from instructblip.data.tables import Table, manifest_hash
from instructblip.data.templates import RESPONSES, fill
from instructblip.evaluation.answers import verbaliser
from instructblip.evaluation.controls import answer_type, answer_types
from instructblip.evaluation.measures import metric
from instructblip.evaluation.predictions import Conditions, Prediction, encode, rows_of
from instructblip.evaluation.runs import CONSTANT
from instructblip.evaluation.subject import Subject
from instructblip.evaluation.trials import Trial
from instructblip.files import replacing
from instructblip.protocols import Mode

TRIED = 20  # most frequent tuned answers of a type, of which the best is said (ours)
OFTEN = 10  # times each true option must be met on average for the split's own frequencies to count (ours)
CAPTION = Form.caption.value


@dataclass
class Tuned:
    """How often annotators gave an answer in what a run was tuned on: by its type, and whole captions by themselves."""

    answers: dict[str, Counter[str]] = field(default_factory=dict)

    def most(self, kind: str) -> list[str]:
        """The most frequent ones of a type; of captions one alone, as scoring them takes long."""
        return [text for text, _ in self.of(kind).most_common(1 if kind == CAPTION else TRIED)]

    def of(self, kind: str) -> Counter[str]:
        return self.answers.get(kind, Counter())


def tuned(asked: Subject, config: EvaluateConfig) -> Tuned:
    """What the run's training splits say. Raises ValueError for a checkpoint, and for a training split not prepared."""
    if config.images is not Images.own:
        raise ValueError(f"constant=true looks at nothing: leave images={config.images.value} out")
    if asked.checkpoint is not None:
        raise ValueError("constant=true says what a run of ours was tuned on; of a checkpoint that is not known")
    facts = OmegaConf.load(asked.results / "config.yaml")
    mixture = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(MixtureConfig), facts.mixture))
    partition = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PartitionConfig), facts.partition))
    assert isinstance(mixture, MixtureConfig) and isinstance(partition, PartitionConfig)
    found = Tuned()
    for recipe in members(mixture, partition.groups())[0]:
        if recipe.form in (Form.vqg, Form.instruct):  # what they say answers no question
            continue
        table = Table.of(Path(asked.data), recipe, recipe.training_split(mixture.splits))
        for text, votes in table.answers().items():
            said = RESPONSES[recipe.response](text)
            kind = CAPTION if recipe.form is Form.caption else answer_type(said)
            found.answers.setdefault(kind, Counter())[said] += votes
    return found


def constant(trial: Trial, config: EvaluateConfig, results: Path, known: Tuned) -> Trial:
    """Writes the constant's predictions where those of a model would lie; returns the trial, ready to be scored."""
    samples = [trial.table.sample(row) for row in rows_of(len(trial.table), config.limit)]
    first = samples[0].candidates
    if trial.vocabulary is None and first is not None and (trial.protocol.mode is Mode.rank or first.vocab):
        predictions = _of_classes(trial, samples) if first.vocab else _of_options(trial, samples, known)
    else:
        predictions = _of_texts(trial, samples, known)
    conditions = Conditions(
        recipe=trial.recipe.name,
        profile=trial.profile,
        variant=trial.variant,
        protocol=trial.hash,
        mode=trial.protocol.mode.value,
        decoding={},
        checkpoint=CONSTANT,
        manifest=manifest_hash(Path(config.paths.data), trial.recipe.name, trial.protocol.split),
        images=Images.none.value,
        batch_size=1,
        limit=config.limit,
        llm_limit=config.eval_llm_limit,
    )
    with replacing(trial.path(results, config)) as temporary:
        temporary.write_bytes(b"".join(encode(conditions, each) for each in predictions))
    return trial


def _of_texts(trial: Trial, samples: Sequence[Sample], known: Tuned) -> list[Prediction]:
    """One text for all questions with answers of a type."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(answer_types(sample)[-1], []).append(sample)
    said = {kind: _fitting(trial, own, known.most(kind), kind) or _usual(own) for kind, own in groups.items()}
    return [_said(trial, sample, said[answer_types(sample)[-1]]) for sample in samples]


def _fitting(trial: Trial, samples: Sequence[Sample], tried: Sequence[str], kind: str) -> str | None:
    """The tuned answer that scores best, of equals the more frequent; None where none does. Captions are not tried."""
    if kind == CAPTION or not tried:
        return tried[0] if tried else None
    scores = {text: _score(trial, [(_said(trial, sample, text), sample) for sample in samples]) for text in tried}
    best = max(tried, key=scores.__getitem__)
    return best if scores[best] > 0 else None


def _usual(samples: Sequence[Sample]) -> str:
    """The split's own most frequent answer."""
    truths: Counter[str] = Counter()
    for sample in samples:
        truths.update({answer.text: answer.votes for answer in sample.answers})
    return truths.most_common(1)[0][0]


def _of_classes(trial: Trial, samples: Sequence[Sample]) -> list[Prediction]:
    """The class that is true most often in the split itself."""
    assert samples[0].candidates is not None and samples[0].candidates.vocab is not None
    words = verbaliser(samples[0].candidates.vocab)
    often = Counter(sample.gold for sample in samples).most_common(1)[0][0]
    assert often is not None
    if trial.protocol.mode is Mode.generate:
        return [_said(trial, sample, words[often][0]) for sample in samples]
    scores = [float(number == often) for number in range(len(words))]
    return [_ranked(trial, sample, scores) for sample in samples]


def _of_options(trial: Trial, samples: Sequence[Sample], known: Tuned) -> list[Prediction]:
    """Always the option at one place, or the one that is said most often: in tuning, or in the split itself where its
    true options are few. Of these the best.
    """
    answers = sum((each for kind, each in known.answers.items() if kind != CAPTION), Counter[str]())
    truths = Counter(_options(sample)[sample.gold] for sample in samples if sample.gold is not None)
    frequencies = [answers] if OFTEN * len(truths) > len(samples) else [answers, truths]
    places = range(max(len(_options(sample)) for sample in samples))
    tried = [
        *([[float(at == place) for at in range(len(_options(sample)))] for sample in samples] for place in places),
        *([[float(often[text]) for text in _options(sample)] for sample in samples] for often in frequencies),
    ]
    made = [[_ranked(trial, sample, scores) for sample, scores in zip(samples, each, strict=True)] for each in tried]
    return max(made, key=lambda predictions: _score(trial, list(zip(predictions, samples, strict=True))))


def _options(sample: Sample) -> tuple[str, ...]:
    assert sample.candidates is not None
    return sample.candidates.items


def _said(trial: Trial, sample: Sample, text: str) -> Prediction:
    return Prediction(sample.uid, fill(trial.wording, sample), output=text)


def _ranked(trial: Trial, sample: Sample, scores: list[float]) -> Prediction:
    return Prediction(sample.uid, fill(trial.wording, sample), scores=scores)


def _score(trial: Trial, pairs: list[tuple[Prediction, Sample]]) -> float:
    return metric(trial.protocol.metric)(pairs).value or 0.0
