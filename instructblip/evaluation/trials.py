"""One recipe asked in one way: its protocol with all that changes a score resolved, and where the results lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instructblip import recipes
from instructblip.choices import Images
from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.preparing.vocabularies import read_vocabulary
from instructblip.data.tables import Table, table_path
from instructblip.data.templates import MAX_OCR_TOKENS, templates
from instructblip.evaluation.answers import verbaliser
from instructblip.evaluation.captions import package
from instructblip.evaluation.measures import CAPTION_METRICS, metric
from instructblip.evaluation.predictions import labelled
from instructblip.evaluation.runs import CONSTANT
from instructblip.evaluation.submissions import SUBMISSIONS
from instructblip.multitask import OCR
from instructblip.names import require
from instructblip.protocols import Evaluation
from instructblip.recipes import Recipe, fingerprint, plain

ALL = "all"  # prompts=all: every profile, and every wording the family is trained with
NO_PART = ("variants", "templates", "submission")  # of what one trial fixes


@dataclass(frozen=True)
class Trial:
    """What is asked, how it is answered, and by which metric it is scored."""

    recipe: Recipe
    profile: str  # of the recipe's prompts, or the id of a template
    variant: str | None
    protocol: Evaluation
    wording: str
    table: Table
    vocabulary: tuple[str, ...] | None  # ranked instead of each Sample's own candidates

    @property
    def hash(self) -> str:
        """Of all that changes a score: the protocol, its wording, the words ranked, how many OCR tokens are read."""
        vocab = candidates.vocab if (candidates := self.table.sample(0).candidates) else None
        words = verbaliser(vocab) if vocab and self.vocabulary is None else self.vocabulary
        facts = {name: value for name, value in plain(self.protocol).items() if name not in NO_PART}
        return fingerprint(facts | {"prompts": self.wording, "words": words, "ocr_tokens": MAX_OCR_TOKENS})

    def path(self, results: Path, config: EvaluateConfig) -> Path:
        """`RESULTS/eval/<recipe>/<profile>[-<variant>]-<hash>/predictions.jsonl`; controls and parts lie apart."""
        name = "-".join(filter(None, [self.profile, self.variant, self.hash]))
        if config.constant:
            name += f"-{CONSTANT}"
        elif config.images is not Images.own:
            name += f"-{config.images.value}"
        if config.limit is not None:
            name += f"-first{config.limit}"
        if config.eval_llm_limit is not None:
            name += f"-llm{config.eval_llm_limit}"
        return results / "eval" / self.recipe.name / name / "predictions.jsonl"


def planned(config: EvaluateConfig) -> tuple[list[list[Trial]], list[str]]:
    """The trials of each recipe that `recipe=` names, and a line for each that is left out.

    Raises ValueError before anything is computed, naming all recipes that lack something: a table, a vocabulary, an
    unknown profile or variant, the packages of a caption metric.
    """
    names, absent = recipes.select(config.recipe, config.partition.groups())
    named = [recipes.load(name) for name in names]
    chosen = [recipe for recipe in named if recipe.evaluation] or named
    left_out = [f"no evaluation protocol for {recipe.name}" for recipe in named if recipe not in chosen]
    left_out += [f"no recipe yet for {name}" for name in absent]
    planned, lacking = [], []
    for recipe in chosen:
        try:
            planned.append(trials(recipe, config))
        except ValueError as error:
            lacking.append(str(error))
    if lacking:
        raise ValueError("\n".join(lacking))
    return planned, left_out


def trials(recipe: Recipe, config: EvaluateConfig) -> list[Trial]:
    """One for `prompts=PROFILE`; for `prompts=all` one a wording, those that two names share once."""
    data = Path(config.paths.data)
    own = list(recipe.evaluation.prompts) if recipe.evaluation else []
    asked = [*own, *wordings(recipe, config.variant)] if config.prompts == ALL else [config.prompts]
    found: dict[str, Trial] = {}
    for profile in asked:
        trial = _trial(recipe, profile, config.variant, data)
        found.setdefault(trial.wording, trial)
    for trial in found.values():
        metric(trial.protocol.metric)
        if trial.protocol.metric in CAPTION_METRICS and labelled([trial.table.sample(0)]):
            package()
    return list(found.values())


def wordings(recipe: Recipe, variant: str | None = None) -> dict[str, str]:
    """The family's training templates by id; none for a recipe without one."""
    if recipe.evaluation is None:
        return {}
    protocol = recipe.protocol(next(iter(recipe.evaluation.prompts)), variant)
    family = protocol.templates or recipe.templates
    return {template.id: template.text for template in templates(family)} if family else {}


def _trial(recipe: Recipe, profile: str, variant: str | None, data: Path) -> Trial:
    texts = wordings(recipe, variant)
    own = next(iter(recipe.evaluation.prompts)) if recipe.evaluation and profile in texts else profile
    protocol = recipe.protocol(own, variant)
    table = Table(table_path(data, recipe.name, protocol.split))
    sample = table.sample(0)
    wording = texts.get(profile) or protocol.prompts[profile]
    if profile in texts and "ocr" in sample.slots and "{ocr}" not in wording:
        wording = OCR + wording  # as in training
    if protocol.submission:
        require(protocol.submission, SUBMISSIONS, f"submission format of {recipe.name}")
    elif not labelled([sample]):
        raise ValueError(f"{recipe.name}: split {protocol.split!r} is unlabelled, and no server form is known for it")
    vocabulary = read_vocabulary(recipe, protocol.vocabulary, data).answers if protocol.vocabulary else None
    return Trial(recipe, profile, variant, protocol, wording, table, vocabulary)
