"""The gate of the backbone: it must not let through what cannot answer, nor what knows without being told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instructblip.data.collate import Collator
from instructblip.miniature import gate
from instructblip.miniature.design import PROGRAMS_OF
from instructblip.miniature.gate import Item, Share, bare, blind, exact, items, perplexity, prior
from instructblip.miniature.scenes import Role
from instructblip.miniature.turns import Turn
from instructblip.models.instructblip import build
from instructblip.models.tokenizers import tokenizers
from tests.conftest import composed

from .test_corpus import SCENE
from .test_telling import parsed


@pytest.fixture(scope="module")
def collator() -> Collator:
    config = composed("train", "model=miniature_llama").model
    return Collator.of(config, tokenizers(config), encoder_decoder=False)


class Parrot:
    """Says what it was taught to say to each prompt, and nothing to others."""

    def __init__(self, collator: Collator, taught: dict[str, str]) -> None:
        self.tokenizer: Any = collator.llm_tokenizer
        self.taught = taught

    def generate(self, *, input_ids: Tensor, image_embeds: Tensor, **options: Any) -> Tensor:
        assert image_embeds.size(1) == 0 and options["num_beams"] == 1
        asked = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        said = [self.tokenizer(self.taught.get(text, "."), add_special_tokens=False)["input_ids"] for text in asked]
        width = max(map(len, said))
        return torch.tensor([ids + [self.tokenizer.pad_token_id] * (width - len(ids)) for ids in said])


def test_every_question_program_is_asked_about_scenes_that_nobody_was_told() -> None:
    asked = items(0, 5)
    designed = {name for entry in PROGRAMS_OF.values() for name in entry.programs}
    assert set(asked) == {name for name in designed if not name.startswith(gate.WRITTEN)}
    assert all(len(found) == 5 for found in asked.values())
    told = [
        parsed(match.group()) for found in asked.values() for item in found if (match := SCENE.match(f"{item.shown} "))
    ]
    assert len(told) > 50 and {scene.role for scene in told} == {Role.evaluation}
    assert items(0, 5) == asked != items(1, 5)


def test_answers_are_as_frequent_as_in_the_scenes() -> None:
    """Still clips are asked nothing else than what moves, and the first round of a dialogue refers to nothing."""
    asked, everything = items(0, 200), bare(1, 200)
    still = [
        sum(turn.said == "none" for turn in turns) / len(turns)
        for turns in ([item.turn for item in asked["what-moves"]], everything["what-moves"])
    ]
    assert abs(still[0] - still[1]) < 0.12, still
    histories = {item.turn.asked.count("?") for item in asked["coreference"]}
    assert len(histories) > 5, histories


def test_an_answer_counts_when_it_is_the_whole_answer(collator: Collator) -> None:
    asked = [Item("a red star.", Turn(f"Where is {name}?", "top left", "where")) for name in "abcd"]
    prompts = [item.turn.asked for item in asked]
    taught = dict(zip(prompts, ("top left", "top", "top left .", "top left"), strict=True))
    model: Any = Parrot(collator, taught)
    assert exact(model, collator, prompts, asked) == 0.5


def test_the_prior_is_what_one_knows_without_the_scene() -> None:
    def turn(asked: str, said: str) -> Turn:
        return Turn(asked, said, "")

    known = [turn("Is it?", "yes"), turn("Is it?", "yes"), turn("Is it?", "no"), turn("Which?", "red")]
    assert prior([turn("Is it?", "yes"), turn("Is it?", "no"), turn("Which?", "red")], known) == pytest.approx(2 / 3)
    assert prior([turn("never asked", "yes")], known) == 1.0  # what is said most
    assert blind(["Options: (a) 1 (b) 2", "Options: (a) 1 (b) 2 (c) 3 (d) 4"]) == 0.375
    assert blind(["OCR tokens: elf, pear, moon, key. Question: what is printed?", "What is it?"]) == 0.125


def test_much_is_known_of_what_is_asked() -> None:
    """Without wordings, or hardly a question would be known again."""
    known, asked = bare(1, 40), bare(2, 8)
    assert set(items(0, 1)) <= set(asked) <= set(known)
    again = {turn.asked for turn in known["exists"]}
    assert sum(turn.asked in again for turn in asked["exists"]) > len(asked["exists"]) / 2
    assert prior(asked["relation-statement"], known["relation-statement"]) < 0.75
    assert all(re.fullmatch(r"Is there an? [a-z ]+\?", turn.asked) for turn in asked["exists"])


def test_what_is_not_told_and_known_all_the_same_is_not_let_through() -> None:
    assert Share(told=0.9, untold=0.30, prior=0.25).enough("colour-of")
    assert not Share(told=0.89, untold=0.2, prior=0.25).enough("colour-of")
    assert not Share(told=0.99, untold=0.31, prior=0.25).enough("colour-of")
    assert Share(told=0.99, untold=0.31, prior=0.25).enough("coreference")  # whose history tells something


def test_what_queries_or_patches_do_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, given in {
        "language_model": (None, None), "aligned": None, "vision_encoder": None, "perplexity": 1.5,
        "shares": {"where": Share(told=0.95, untold=0.1, prior=0.1)},
        "probe_queries": {"shape": 0.71, "cell": 0.69}, "probe": {"shape": 0.96, "word": 0.94},
    }.items():  # fmt: skip
        monkeypatch.setattr(gate, name, lambda *_, given=given, **__: given)
    found = gate.judged(Path("weights"), ["llama", "t5"])
    assert found["lacking"] == ["llama queries' cell", "t5 queries' cell", "vision word"]
    assert found["families"]["t5"]["queries"] == {"shape": 0.71, "cell": 0.69}


def test_a_model_of_random_weights_is_as_perplexed_as_its_vocabulary_is_large(collator: Collator) -> None:
    config = composed("train", "experiment=miniature/scratch", "model=miniature_llama", "model.init=null",
                      "model.vision.weights=null", "model.llm.weights=null", "model.random_init=true").model  # fmt: skip
    value = perplexity(build(config, seed=0).eval(), collator, number=4)
    assert 500 < value < 2500
