"""What a question is asked about: its own picture, or what a control puts in its place.

Controls say what a score is worth. Without the picture (`none`), or with one of another question whose answer is of the
same kind (`deranged`), an answer comes from the question and from what the model expects: a floor. With the scene in
words (`told`) the language model knows all there is to see: a ceiling.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from instructblip.choices import Images
from instructblip.config.evaluation import EvaluateConfig
from instructblip.data.sample import SCENES, MediaRef, Sample
from instructblip.evaluation.answers import normalize
from instructblip.evaluation.questions import Identity, Question, identity, render
from instructblip.evaluation.trials import Trial

SEED = 0  # of the controls that show other pictures
FRAME = re.compile(r"-\d+of\d+$")  # of a clip's frame behind the key of the clip (`preparing.clips.frame_keys`)
OPENING = 2  # words of a question that tell its kind, as VQA's question types do (ours)
Scenes = Mapping[tuple[str, str], str]  # pool and key of a picture or clip -> what it shows


def asked(trial: Trial, config: EvaluateConfig) -> list[Question]:
    """The trial's questions as the config's `images` has them.

    Raises ValueError where other pictures are wanted and there are none, and where the scenes' words are not at hand.
    """
    questions = render(trial.table, trial.wording, config.limit)
    if config.images is Images.shuffled:
        return shuffled(questions, SEED)
    if config.images is Images.deranged:
        types = [answer_types(trial.table.sample(question.row)) for question in questions]
        return deranged(questions, types, SEED)
    if config.images is Images.none:
        return [replace(question, media=()) for question in questions]
    if config.images is Images.told:
        scenes = read_scenes(Path(config.paths.data))
        return [replace(each, prompt=told(each.prompt, each.media, scenes), media=()) for each in questions]
    return questions


def shuffled(questions: Sequence[Question], seed: int) -> list[Question]:
    """The same questions, none with its own picture: all stand in a random circle and move on by one."""
    pictures = {identity(question): question.media for question in questions}
    if len(pictures) < 2:
        raise ValueError(f"images=shuffled needs two pictures, the {len(questions)} questions share one")
    other = _moved_on(pictures, random.Random(seed))
    return [replace(question, media=other[identity(question)]) for question in questions]


def deranged(questions: Sequence[Question], types: Sequence[Sequence[str]], seed: int) -> list[Question]:
    """The same questions, each with the picture of another one whose answer is of the same type, none with its own.

    `types` are each question's own, the narrowest first; where all of a type are about one picture the next wider
    counts. Within a type pictures move on in a random circle. Raises ValueError naming a type of one picture alone.
    """
    pictures: dict[str, dict[Identity, tuple[MediaRef, ...]]] = {}
    for question, own in zip(questions, types, strict=True):
        for each in own:
            pictures.setdefault(each, {})[identity(question)] = question.media
    rng = random.Random(seed)
    other = {each: _moved_on(pictures[each], rng) for each in sorted(pictures) if len(pictures[each]) > 1}
    moved = []
    for question, own in zip(questions, types, strict=True):
        wide = next((each for each in own if each in other), None)
        if wide is None:
            raise ValueError(
                f"images=deranged: of {len(questions)} questions those with answers of type {own[-1]!r} "
                f"are about one picture (first {question.uid}); ask more of them (limit), or use images=shuffled"
            )
        moved.append(replace(question, media=other[wide][identity(question)]))
    return moved


def answer_types(sample: Sample) -> tuple[str, ...]:
    """Of what kind its answer is, the narrowest first: yes/no, number, or other, which the question's opening narrows.

    All of a set with common classes are of one type, and so are all captions and all other free texts.
    """
    if sample.candidates is not None and sample.candidates.vocab is not None:
        return (sample.candidates.vocab,)
    if sample.candidates is not None and sample.gold is not None:
        truth = sample.candidates.items[sample.gold]
    elif sample.answers and "question" in sample.slots:
        truth = max(sample.answers, key=lambda answer: answer.votes).text
    else:
        return (sample.form.value,)
    kind = answer_type(truth)
    if kind != "other":
        return (kind,)
    opening = " ".join(normalize(str(sample.slots.get("question", ""))).split()[:OPENING])
    return (f"{kind}: {opening}", kind)


def answer_type(text: str) -> str:
    """VQA's three: yes/no, number, other."""
    plain = normalize(text)
    if plain in ("yes", "no"):
        return "yes/no"
    return "number" if plain.isdecimal() else "other"


def told(prompt: str, shown: tuple[MediaRef, ...], scenes: Scenes) -> str:
    """The prompt behind what there is to see. Raises ValueError naming a picture or clip without words."""
    ref = shown[0]
    text = words_of(ref, scenes)
    if text is None:
        raise ValueError(f"images=told: {ref.pool}/{ref.key} has no words in {SCENES}; prepare the world again")
    return f"{text} {prompt}".strip()


def words_of(ref: MediaRef, scenes: Scenes) -> str | None:
    """What a picture shows, or the clip that a frame is of; None where nobody has told it."""
    return scenes.get((ref.pool, ref.key)) or scenes.get((ref.pool, FRAME.sub("", ref.key)))


def read_scenes(data: Path) -> Scenes:
    """Raises ValueError when the prepared data hold no scenes in words, or a line is none."""
    path = data / SCENES
    if not path.is_file():
        raise ValueError(
            f"images=told needs {path}: only an embedded world (prepare.py miniature=SEED) has its scenes in words"
        )
    scenes = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            facts = json.loads(line)
            scenes[str(facts["pool"]), str(facts["key"])] = str(facts["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} line {number} is no scene in words ({error}); prepare the world again") from error
    return scenes


def _moved_on(
    pictures: Mapping[Identity, tuple[MediaRef, ...]], rng: random.Random
) -> dict[Identity, tuple[MediaRef, ...]]:
    """Each picture's successor in a random circle of all."""
    circle = sorted(pictures)
    rng.shuffle(circle)
    return {key: pictures[after] for key, after in zip(circle, circle[1:] + circle[:1], strict=True)}
