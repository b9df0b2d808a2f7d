"""What the page shows is what the model's own verbs give; what the user can put right is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from instructblip.data.collate import Row
from instructblip.data.templates import Example
from instructblip.demo.asking import LONGEST, MOST_OPTIONS, SIDE, Decoder, Shown, ask, read_options
from instructblip.inference import Assistant
from instructblip.models.attention import Attended

from .conftest import PICTURE, untrained

QUESTION = "What color is the circle?"
GREEDY = {"num_beams": 1, "min_new_tokens": 5}


def asked(assistant: Assistant, *given: Any, **changes: Any) -> list[Shown]:
    image, instruction, options = (*given, *(PICTURE, QUESTION, "")[len(given) :])
    settings = {**Decoder.of("vqav2", assistant.family).settings, **GREEDY, **changes}
    return list(ask(assistant, image, instruction, options, settings))


def test_the_answer_grows_to_what_generate_gives(assistant: Assistant) -> None:
    settings = {**Decoder.of("vqav2", assistant.family).settings, **GREEDY}
    shown = asked(assistant)
    texts = [each.answer for each in shown]
    assert texts[-1] == assistant.answer(PICTURE, QUESTION, **settings) and len(set(texts)) > 3
    assert all(texts[-1].startswith(text) for text in texts) and not shown[-1].told
    assert all(each.log_likelihood is None for each in shown[:-2])


def test_beams_come_whole(assistant: Assistant) -> None:
    decoder = Decoder.of("vqav2", assistant.family)
    assert decoder.settings["num_beams"] == 5 and decoder.settings["max_new_tokens"] == 10
    shown = asked(assistant, **decoder.settings)
    assert {each.answer for each in shown} == {assistant.answer(PICTURE, QUESTION, **decoder.settings)}


def test_the_log_likelihood_is_that_of_training_and_of_rank(assistant: Assistant) -> None:
    shown = asked(assistant)[-1]
    assert assistant.rank(PICTURE, QUESTION, [shown.answer]) == [(shown.answer, pytest.approx(shown.log_likelihood))]
    pixels = [assistant.processor.pixels(PICTURE)]
    example = Example(QUESTION, shown.answer, "", "", "")
    batch = assistant.processor.collator.training([Row(example, 0)], pixels)
    with torch.no_grad():
        nll = assistant.model(**batch.inputs(), labels=batch.labels)[0]  # (T,), EOS the last
    told = nll if assistant.family == "encoder_decoder" else nll[:-1]
    assert shown.log_likelihood == pytest.approx(-float(told.sum()), abs=1e-3)


def test_options_are_ranked_beside_the_answer(assistant: Assistant) -> None:
    shown = asked(assistant, PICTURE, QUESTION, "red\nlight blue\n\nred\ngreen\n")[-1]
    assert [text for text, _ in shown.ranking] == [
        text for text, _ in assistant.rank(PICTURE, QUESTION, ["red", "light blue", "green"])
    ]
    scores = [score for _, score in shown.ranking]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert shown.told == (
        "Line 3 of the options is empty and was left out.",
        "Line 4 of the options repeats line 1 and was left out.",
    )
    again = asked(assistant, PICTURE, QUESTION, f"red\n{shown.answer}")[-1]
    assert dict(again.ranking)[shown.answer] == again.log_likelihood == pytest.approx(shown.log_likelihood, abs=1e-4)


def test_a_map_shows_where_the_queries_look(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.zeros(2, 3, 10)  # (K, Q, P): CLS and 3 x 3 patches
    weights[0, :, 3], weights[1, :, 7], weights[..., 0] = 0.75, 0.75, 0.25
    monkeypatch.setattr(Assistant, "attention", lambda *_: Attended(weights, (0, 2), (3, 3)))
    shown = asked(assistant, Image.new("RGB", (48, 24), "white"))[-1]
    maps, captions = zip(*shown.maps, strict=True)
    assert captions == ("all layers", "layer 0", "layer 2") and shown.cls_share == 0.25
    assert all(image.size == (SIDE, SIDE // 2) for image in maps)
    coloured = [
        [
            number
            for number in range(9)
            if image.getpixel((56 + number % 3 * 112, 28 + number // 3 * 56)) != (255, 255, 255)
        ]
        for image in maps
    ]
    assert coloured == [[2, 6], [2], [6]]


def test_what_can_be_put_right_is_told(assistant: Assistant, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("no picture")
    for given, told in [
        ((None,), "There is no picture"),
        ((tmp_path / "photo.png",), "This is no picture that can be read"),
        ((PICTURE, " \n"), "The instruction is empty"),
        ((PICTURE, "a" * (LONGEST + 1)), f"has {LONGEST + 1:,} characters"),
        ((PICTURE, QUESTION, "x\n" * (MOST_OPTIONS + 1)), f"have {MOST_OPTIONS + 1} lines"),
        ((PICTURE, QUESTION, "x" * (LONGEST + 1)), f"{LONGEST + 1:,} characters"),
    ]:
        (shown,) = asked(assistant, *given)
        assert told in shown.told[-1] and not shown.answer, given


def test_what_a_tower_does_not_read_is_told() -> None:
    causal = untrained()
    long = asked(causal, PICTURE, "What is it? " * 40)
    assert long[-1].answer and long[-1].told == ("The Q-Former reads the last 128 tokens of this instruction.",)
    assert "positions" in asked(causal, PICTURE, "What is it? " * 300)[-1].told[-1]
    unaware = asked(untrained("model.qformer.instruction_aware=false"), PICTURE, "What is it? " * 40)
    assert unaware[-1].answer and "does not read instructions" in unaware[-1].told[0] and len(unaware[-1].told) == 1


def test_a_full_gpu_is_told(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Iterator[str]:
        yield "red"
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Assistant, "stream", full)
    shown = asked(assistant)
    assert [each.answer for each in shown] == ["red", "red"] and "no memory left" in shown[-1].told[-1]


def test_an_answer_without_words_has_no_log_likelihood(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Assistant, "stream", lambda *_, **__: iter([""]))
    shown = asked(assistant, PICTURE, QUESTION, "red")[-1]
    assert shown.log_likelihood is None and [text for text, _ in shown.ranking] == ["red"]
    assert "before the first word" in shown.told[-1]


def test_blank_options_are_none() -> None:
    assert read_options("") == read_options(" \n\n") == ([], ())


def test_a_recipe_that_generates_nothing_has_no_settings() -> None:
    with pytest.raises(ValueError, match="recipe=vsr has no decoding settings"):
        Decoder.of("vsr", "causal")
    with pytest.raises(ValueError, match="vqav2"):
        Decoder.of("vqa2", "causal")
