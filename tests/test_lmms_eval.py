"""The wrapper under a stand-in of lmms-eval: its base class, its requests and its registry, with the same signatures."""

from __future__ import annotations

import abc
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from instructblip import lmms_eval
from tests.conftest import ROOT, World, one_step

PICTURES = [
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)) for number in range(5)
]
QUESTIONS = ["What color is it?", "Is there a red circle left of the blue star?", "Which?", "How many?", "Where is it?"]
SHORT = {"until": "\n\n", "max_new_tokens": 4, "do_sample": False, "temperature": 0}


class Base(abc.ABC):
    """`lmms_eval.api.model.lmms` of August 2026: what it sets and what it asks for."""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.cache_hook, self.task_dict = Hook(), {}

    @abc.abstractmethod
    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]: ...

    @abc.abstractmethod
    def generate_until(self, requests: list[Any]) -> list[str]: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: list[Any]) -> list[str]: ...

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any]) -> Any:
        given = dict(pair.split("=") for pair in arg_string.split(","))
        return cls(**given, **{name: value for name, value in additional_config.items() if value is not None})


class Hook:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.told.append((attr, res))


@dataclass
class Request:
    arguments: tuple[Any, ...]

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_step(world, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module as it is where lmms-eval is installed."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models", "lmms_eval.models.registry_v2")
    modules = {name: ModuleType(name) for name in names}
    modules["lmms_eval.api.model"].lmms = Base
    modules["lmms_eval.models.registry_v2"].ModelManifest = lambda model_id, simple_class_path: (
        model_id,
        simple_class_path,
    )
    with monkeypatch.context() as patched:
        for name, module in modules.items():
            patched.setitem(sys.modules, name, module)
        yield importlib.reload(lmms_eval)
    importlib.reload(lmms_eval)


def made(wrapper: ModuleType, run: Path, batch_size: int) -> Any:
    given = {"batch_size": batch_size, "max_batch_size": None, "device": "cpu"}
    model = wrapper.Run.create_from_arg_string(f"pretrained={run}", given)
    model.task_dict["colors"] = {"test": [{"image": picture, "answer": "blue"} for picture in PICTURES]}
    return model


def visual(document: dict[str, Any]) -> list[Image.Image]:
    return [document["image"]]


def asked(**settings: Any) -> list[Request]:
    return [
        Request((text, SHORT | settings, visual, number, "colors", "test")) for number, text in enumerate(QUESTIONS)
    ]


def test_texts_of_a_batch_are_those_of_one_by_one(wrapper: ModuleType, run: Path) -> None:
    one, batched = made(wrapper, run, 1), made(wrapper, run, 3)
    requests = asked()
    texts = batched.generate_until(requests)
    assert texts == one.generate_until(requests) == one.generate_until(requests[::-1])[::-1]
    assert len(texts) == 5 and all(isinstance(text, str) for text in texts) and len(set(texts)) > 1
    alone = one.assistant.answer(PICTURES[1], QUESTIONS[1], **wrapper.GREEDY | {"max_new_tokens": 4})
    assert texts[1] == alone and requests[0].args[1] == SHORT
    assert batched.cache_hook.told == [("generate_until", text) for text in texts]


def test_what_is_drawn_does_not_depend_on_the_batch(wrapper: ModuleType, run: Path) -> None:
    requests = asked(do_sample=True, temperature=1, top_p=0.9)
    drawn = made(wrapper, run, 4).generate_until(requests)
    assert drawn == made(wrapper, run, 1).generate_until(requests) != made(wrapper, run, 4).generate_until(asked())


def test_a_text_ends_before_its_stop(wrapper: ModuleType, run: Path) -> None:
    model = made(wrapper, run, 2)
    whole = model.generate_until(asked())[0]
    stop = whole[1:3]
    assert len(whole) > 3 and model.generate_until(asked(until=["never", stop]))[0] == whole.split(stop)[0].strip()


def test_likelihoods_are_those_of_the_ranking(wrapper: ModuleType, run: Path) -> None:
    targets = ["red", " blue", lambda document: document["answer"]]
    requests = [
        Request((text, target, visual, number, "colors", "test"))
        for number, text in enumerate(QUESTIONS)
        for target in targets
    ]
    model = made(wrapper, run, 3)
    found = model.loglikelihood(requests)
    assert [score for score, _ in found] == pytest.approx(
        [score for score, _ in made(wrapper, run, 1).loglikelihood(requests)], abs=1e-4
    )
    for number, text in enumerate(QUESTIONS):
        expected = dict(model.assistant.rank(PICTURES[number], text, ["red", "blue"]))
        red, blue, named = found[3 * number : 3 * number + 3]
        assert (red[0], blue[0]) == pytest.approx((expected["red"], expected["blue"]), abs=1e-4) and blue == named
    texts = model.generate_until(asked(max_new_tokens=1))
    number = next(number for number, text in enumerate(texts) if text.isascii() and text.isalpha())  # a whole word
    greedy, other = (
        model.loglikelihood([Request((QUESTIONS[number], text, visual, number, "colors", "test"))])
        for text in (texts[number], f"{texts[number]} blue")
    )
    assert greedy[0][1] is True and greedy[0][0] > other[0][0] and {type(each) for each in found[0]} == {float, bool}


def test_several_pictures_are_shown_as_a_clip(wrapper: ModuleType, run: Path) -> None:
    model = made(wrapper, run, 5)
    both = [*asked(), Request((f"<image><image>{QUESTIONS[0]}", SHORT, lambda _: PICTURES[:2], 0, "colors", "test"))]
    texts = model.generate_until(both)
    clip = model.assistant.answer(PICTURES[:2], QUESTIONS[0], **wrapper.GREEDY | {"max_new_tokens": 4})
    assert texts[:5] == model.generate_until(asked()) and texts[5] == clip


def test_what_cannot_be_asked_is_named(wrapper: ModuleType, run: Path, tmp_path: Path) -> None:
    model = made(wrapper, run, 2)
    cases = [
        (("What?", SHORT, lambda _: [], 2, "colors", "test"), "colors/test/2 shows no picture"),
        (("What?", SHORT, None, 2, "colors", "test"), "colors/test/2 shows no picture"),
        (("<image> ", SHORT, visual, 1, "colors", "test"), "colors/test/1 asks nothing"),
        (("What?", SHORT, lambda _: [str(tmp_path / "film.mp4")], 1, "colors", "test"), "colors/test/1: .*film.mp4 is no picture"),
        (("What?", SHORT | {"do_sample": True, "temperature": 0.7}, visual, 1, "colors", "test"), "temperature=0.7"),
    ]  # fmt: skip
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            model.generate_until([Request(arguments)])
    with pytest.raises(NotImplementedError, match="2 requests of several rounds"):
        model.generate_until_multi_round([None, None])
    with pytest.warns(UserWarning, match="image_aspect_ratio"):
        model.generate_until(asked(image_aspect_ratio="original")[:1])
    for given, message in [({"batch_size": "auto"}, "--batch_size auto"), ({"dtype": "half"}, "--model_args dtype")]:
        with pytest.raises(ValueError, match=message):
            wrapper.Run(str(run), **given)


def test_lmms_eval_finds_it_by_its_entry_point(wrapper: ModuleType) -> None:
    assert wrapper.manifest() == ("instructblip_run", "instructblip.lmms_eval.Run")
    assert issubclass(wrapper.Run, Base) and wrapper.Run.is_simple
    assert 'instructblip_run = "instructblip.lmms_eval:manifest"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(find_spec("lmms_eval") is not None, reason="lmms-eval is installed here")
def test_without_lmms_eval_the_module_is_there_and_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="lmms-eval is not installed here"):
        importlib.reload(lmms_eval).Run("run")
