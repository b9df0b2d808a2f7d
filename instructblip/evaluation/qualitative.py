"""Several models asked the same about the same pictures, side by side on one page.

A set is a YAML in `experiments/qualitative/`, or a file of one's own: pictures with one turn or a conversation each.
Every model goes on with its own answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from PIL import Image

from instructblip.config.evaluation import ReportConfig
from instructblip.data.media import BadMedia, decode
from instructblip.data.processor import open_picture
from instructblip.data.shards import MediaPool
from instructblip.evaluation.pages.page import write
from instructblip.evaluation.pages.pictures import Picture, shown
from instructblip.evaluation.parts import Share
from instructblip.evaluation.predict import device
from instructblip.evaluation.runs import find_run
from instructblip.files import read_yaml
from instructblip.inference import load
from instructblip.names import require
from instructblip.revision import revision

SETS = Path(__file__).resolve().parents[2] / "experiments" / "qualitative"
OTHERS = "hf:"  # before the folder of a model of transformers


@dataclass
class Search:
    """Settings of `generate` that transformers has too; the defaults are those of the official demo (LAVIS)."""

    num_beams: int = 5
    max_new_tokens: int = 256
    min_new_tokens: int = 1
    repetition_penalty: float = 1.5
    length_penalty: float = 1.0


@dataclass
class Item:
    """A picture, by a file relative to the set's or by `pool/key`, and what is asked about it, turn after turn."""

    image: str | None = None
    media: str | None = None
    turns: list[str] = MISSING

    @property
    def name(self) -> str:
        return self.image or str(self.media)


@dataclass
class QuestionSet:
    title: str = MISSING
    source: str = MISSING
    items: list[Item] = MISSING
    decoding: Search = field(default_factory=Search)


@dataclass(frozen=True)
class Turn:
    """What was asked, the text the model read for it, and what it said."""

    asked: str
    prompt: str
    said: str


@dataclass(frozen=True)
class Model:
    """A model that was asked: `answers` hold its turns, one list an item."""

    name: str
    kind: str
    answers: Sequence[Sequence[Turn]]


def compare(config: ReportConfig, place: Path) -> Path:
    """Writes `place/compare-<set>.html`. One model is in memory at a time.

    Raises ValueError before the first is loaded for an unknown set, run or folder, and naming every picture that is
    not there.
    """
    if config.set is None:
        raise ValueError(f"compare=[...] needs set=NAME. Known: {', '.join(_names())}; or the path of a YAML")
    path = set_path(config.set)
    questions = read_set(path)
    pictures = [image for image, _ in _pictures(questions, path, Path(config.paths.data))]
    chosen = [(name, _opened(name, Path(config.paths.runs))) for name in config.compare]
    models = [
        _asked(name, open_model(device(config.device, Share())), questions, pictures) for name, open_model in chosen
    ]
    small = [shown(image, item.name) for image, item in zip(pictures, questions.items, strict=True)]
    return write(
        place / f"compare-{path.stem}.html",
        "compare.html",
        title=questions.title,
        questions=questions,
        cards=_cards(questions, small, models),
        models=models,
        code=revision(),
    )


def set_path(name: str) -> Path:
    """Of a set's name, or of a path. Raises ValueError with the nearest name."""
    if name.endswith(".yaml"):
        if not Path(name).is_file():
            raise ValueError(f"set={name} is not there")
        return Path(name)
    require(name, _names(), "set")
    return SETS / f"{name}.yaml"


def read_set(path: Path) -> QuestionSet:
    """Raises ValueError naming what is wrong with which item."""
    questions = read_yaml(path, QuestionSet)
    for number, item in enumerate(questions.items, start=1):
        if (item.image is None) == (item.media is None):
            raise ValueError(f"{path} item {number}: give image: FILE or media: POOL/KEY, one of the two")
        if item.media is not None and "/" not in item.media:
            raise ValueError(f"{path} item {number}: media {item.media!r} is no POOL/KEY")
        if not item.turns or not all(turn.strip() for turn in item.turns):
            raise ValueError(f"{path} item {number} ({item.name}): a turn is empty, or there is none")
    if not questions.items:
        raise ValueError(f"{path} asks nothing: items is empty")
    return questions


def _names() -> list[str]:
    return sorted(path.stem for path in SETS.glob("*.yaml"))


def _pictures(questions: QuestionSet, path: Path, data: Path) -> list[tuple[Image.Image, Item]]:
    found, absent = [], []
    for item in questions.items:
        try:
            found.append((_picture(item, path.parent, data), item))
        except (BadMedia, ValueError) as error:
            absent.append(f"{item.name}: {error}")
    if absent:
        raise ValueError("\n".join([f"{path} shows pictures that cannot be read:", *dict.fromkeys(absent)]))
    return found


def _picture(item: Item, folder: Path, data: Path) -> Image.Image:
    if item.image is not None:
        if not (folder / item.image).is_file():
            raise ValueError(f"put the picture at {folder / item.image}")
        return open_picture(folder / item.image)
    pool, _, key = str(item.media).partition("/")
    if not (data / "media" / pool).is_dir():
        raise ValueError(f"{data} has no pool {pool!r}: prepare a recipe that shows it, or name paths.data=DIR")
    return decode(MediaPool(data / "media" / pool).read(key))


Ask = Callable[[Image.Image, Sequence[tuple[str, str]], str, dict[str, Any]], Turn]


def _opened(name: str, runs: Path) -> Callable[[str], tuple[str, Ask]]:
    """How a model is loaded onto a device. Raises ValueError when it is not there."""
    if name.startswith(OTHERS):
        folder = Path(name.removeprefix(OTHERS))
        if not folder.is_dir():
            raise ValueError(f"{name}: {folder} is no folder; models of transformers are read from local folders")
        return lambda device: _other(folder, device)
    run = find_run(name, runs)
    return lambda device: _ours(run, device)


def _ours(run: Path, device: str) -> tuple[str, Ask]:
    assistant = load(run, device)

    def ask(image: Image.Image, turns: Sequence[tuple[str, str]], instruction: str, settings: dict[str, Any]) -> Turn:
        prompt = transcript(turns, instruction)
        return Turn(instruction, prompt, assistant.answer(image, prompt, **settings))

    return assistant.config.name, ask


def _other(folder: Path, device: str) -> tuple[str, Ask]:
    from instructblip.models.others import load_other

    other = load_other(folder, device)

    def ask(image: Image.Image, turns: Sequence[tuple[str, str]], instruction: str, settings: dict[str, Any]) -> Turn:
        prompt = other.prompt(turns, instruction) if other.chats else transcript(turns, instruction)
        return Turn(instruction, prompt, other.answer(image, prompt, **settings))

    return other.kind, ask


def transcript(turns: Sequence[tuple[str, str]], instruction: str) -> str:
    """A conversation for a model of single turns, in the words of the paper's VisDial prompt (appendix E)."""
    before = " ".join(f"Question: {asked} Answer: {said}" for asked, said in turns)
    return f"Dialog history: {before}\n {instruction}" if before else instruction


def _asked(name: str, opened: tuple[str, Ask], questions: QuestionSet, pictures: Sequence[Image.Image]) -> Model:
    kind, ask = opened
    answers = []
    for image, item in zip(pictures, questions.items, strict=True):
        turns: list[Turn] = []
        for instruction in item.turns:
            before = [(turn.asked, turn.said) for turn in turns]
            turns.append(ask(image, before, instruction, dict(vars(questions.decoding))))
        answers.append(turns)
    return Model(name, kind, answers)


def _cards(
    questions: QuestionSet, pictures: Sequence[Picture], models: Sequence[Model]
) -> list[tuple[Picture, list[tuple[str, list[tuple[Model, Turn]]]]]]:
    """Each picture with its turns, and each turn with what every model said."""
    return [
        (picture, [
            (asked, [(model, model.answers[number][turn]) for model in models]) for turn, asked in enumerate(item.turns)
        ])
        for number, (picture, item) in enumerate(zip(pictures, questions.items, strict=True))
    ]  # fmt: skip
