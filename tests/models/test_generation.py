"""Writing a response: against `transformers` with the same weights, against brute force, and against itself."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, TextIteratorStreamer

from instructblip.models.generation import Search, write
from instructblip.models.instructblip import InstructBlip
from instructblip.models.prefix import Prefix

from .conftest import (
    BEAM,
    EOS,
    GREEDY,
    IMAGE_TOKEN,
    LONG,
    PAD,
    SHORT,
    eager_to_end,
    oracle_of,
    prompt_batch,
    tiny_config,
    until_eos,
    with_placeholders,
)

SEARCHES = {
    "greedy": GREEDY,
    "beam": BEAM,
    "short": SHORT,
    "long": LONG,
    "unweighed": BEAM | {"length_penalty": 0.0, "num_beams": 2},
}
TRANSFORMERS = {"beam_length": "generated"}
PENALTY = {"repetition_penalty": 1.5}
NUCLEUS = GREEDY | {"top_p": 0.9, "seeds": [3, 4, 5]}
every_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


@pytest.fixture(autouse=True)
def _answers_end(request: pytest.FixtureRequest) -> None:
    """EOS wins now and then, and the oracle's placeholder, which it punishes and we do not have, never."""
    if "model" in request.fixturenames:
        model = eager_to_end(request.getfixturevalue("model"))
        with torch.no_grad():
            model.llm.model.get_output_embeddings().weight[IMAGE_TOKEN] = 0


def row_of(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One row without its padding."""
    one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
    real = one["attention_mask"][0].bool()
    return one | {name: one[name][:, real] for name in ("input_ids", "attention_mask")}


# --- the oracle ---------------------------------------------------------------------------------------------


@every_search
def test_ids_equal_the_oracles(llm: str, model: InstructBlip, search: dict[str, Any]) -> None:
    batch = prompt_batch(llm)
    asked = with_placeholders(batch, model)
    theirs = oracle_of(model, tiny_config(llm)).generate(**asked, **search)
    theirs = theirs[:, 1:] if llm == "t5" else theirs[:, asked["input_ids"].size(1) :]
    ours = model.generate(**batch, **search, **TRANSFORMERS)
    assert [until_eos(row) for row in ours.tolist()] == [until_eos(row) for row in theirs.tolist()]
    assert llm == "t5" or len({tuple(row) for row in ours.tolist()}) > 1  # the pictures and prompts matter


@every_search
def test_ids_equal_the_oracles_which_punishes_the_words_of_the_prompt(
    llm: str, model: InstructBlip, search: dict[str, Any]
) -> None:
    """A row at a time: what the oracle forgives depends on the padding of its batch."""
    batch, oracle = prompt_batch(llm), oracle_of(model, tiny_config(llm))
    ours = model.generate(**batch, **search | PENALTY, **TRANSFORMERS, repetition_scope="all")
    for row in range(3):
        asked = with_placeholders(row_of(batch, row), model)
        theirs = oracle.generate(**asked, **search | PENALTY)[0, 1 if llm == "t5" else asked["input_ids"].size(1) :]
        assert until_eos(ours[row].tolist()) == until_eos(theirs.tolist())


@every_search
@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")
def test_scope_generated_is_the_language_models_own_generate(
    llm: str, model: InstructBlip, search: dict[str, Any]
) -> None:
    """Embeddings hold no ids to punish."""
    batch, search = prompt_batch(llm), search | PENALTY
    queries = model.query_embeds(batch["pixel_values"], batch["qformer_input_ids"], batch["qformer_attention_mask"])
    text = model.llm.model.get_input_embeddings()(batch["input_ids"])
    ours = model.generate(**batch, **search, **TRANSFORMERS)
    for row, mask in enumerate(batch["attention_mask"].bool()):
        embeds = torch.cat((queries[row], text[row, mask]))[None]
        theirs = model.llm.model.generate(inputs_embeds=embeds, do_sample=False, **search)
        assert until_eos(ours[row].tolist()) == until_eos(theirs[0, 1 if llm == "t5" else 0 :].tolist())


def test_the_scopes_differ_where_the_prompt_is_part_of_what_is_written(llm: str, model: InstructBlip) -> None:
    batch, search = prompt_batch(llm), BEAM | {"repetition_penalty": 3.0, "max_new_tokens": 12}
    generated, everything, none = (
        model.generate(**batch, **given).tolist()
        for given in (search, search | {"repetition_scope": "all"}, search | {"repetition_penalty": 1.0})
    )
    assert (generated == everything) == (llm == "t5")
    assert generated != none


# --- brute force --------------------------------------------------------------------------------------------


def markov(seed: int, words: int = 4) -> Tensor:
    """Log-probabilities (words + 1, words) after each word, and after nothing in the last row."""
    scores = 2 * torch.randn(words + 1, words, generator=torch.Generator().manual_seed(seed))
    return scores.log_softmax(dim=1)


def written(chains: list[Tensor], eos: list[int], seeds: list[int] | None = None, **search: Any) -> list[list[int]]:
    """What is written, row by row, by models that see no further than the last word."""
    table = torch.stack(chains)  # (B, words + 1, words)

    def step(prefix: Prefix, ids: Tensor) -> Prefix:
        return Prefix(table[prefix.attention_mask, ids][:, 0], prefix.cache, prefix.attention_mask)

    rows = torch.arange(len(chains))[:, None]  # (B, 1) in the mask's place, which is selected with its row
    prefix = Prefix(table[:, -1], DynamicCache(), rows)
    seen = torch.zeros(len(chains), table.size(2), dtype=torch.bool)
    given = {"min_new_tokens": 0, "repetition_penalty": 1.0, "length_penalty": 1.0, **search}
    return write(prefix, step, seen, Search(**given), seeds, torch.tensor(eos), pad=9).tolist()


def best_of_all(chain: Tensor, eos: list[int], longest: int, power: float, cut_counts: int) -> list[int]:
    """The best of every response; one that is cut counts `cut_counts` tokens more than it has."""
    scored: dict[tuple[int, ...], float] = {}
    for ids in product(range(chain.size(1)), repeat=longest):
        end = next((i + 1 for i, token in enumerate(ids) if token in eos), longest)
        total = sum(chain[before, token].item() for before, token in zip((-1, *ids), ids[:end], strict=False))
        scored[ids[:end]] = total / (end + (cut_counts if ids[end - 1] not in eos else 0)) ** power
    return list(max(scored, key=scored.__getitem__))


@pytest.mark.parametrize("eos", [[0], [0, 2]], ids=["one EOS", "two"])
@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0, 2.0])
def test_with_beams_for_all_the_best_of_all_is_found(power: float, eos: list[int]) -> None:
    search = {"num_beams": 48, "max_new_tokens": 3, "length_penalty": power}
    answers = []
    for seed in range(12):
        chain = markov(seed)
        pair = [written([chain], eos, **search, beam_length=length)[0] for length in ("with_start", "generated")]
        assert pair == [best_of_all(chain, eos, 3, power, cut_counts) for cut_counts in (1, 0)]
        answers.append(pair)
    assert len(eos) == 2 or any(a != b for a, b in answers) == (power != 0)  # with two a cut is rarely best


def test_beams_that_end_make_room_for_others() -> None:
    """EOS is among the two likeliest first words, yet two beams go on: the third word leads to the best end."""
    chain = torch.tensor([[0.36, 0.34, 0.30], [0.2, 0.4, 0.4], [1.0, 0.0, 0.0], [0.36, 0.34, 0.30]])
    chain = chain.clamp(min=1e-9).log()  # after EOS, after 1, after 2, at the start
    assert written([chain], [0], num_beams=2, max_new_tokens=2, beam_length="generated") == [[2, 0]]


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0, 3.0])
def test_a_row_that_is_done_waits_unchanged_for_the_others(power: float) -> None:
    chains = [markov(seed) for seed in range(60)]
    search = {"num_beams": 2, "max_new_tokens": 8, "length_penalty": power}
    for chain, together in zip(chains, written(chains, [0], **search), strict=True):
        (alone,) = written([chain], [0], **search)
        assert together == alone + [9] * (len(together) - len(alone))


def test_no_end_before_the_minimum_and_none_after_the_maximum() -> None:
    for beams, seed in product((1, 4), range(8)):
        ids = written([markov(seed)], [0], num_beams=beams, max_new_tokens=6, min_new_tokens=4)[0]
        assert 0 not in ids[:4] and len(ids) <= 6 and 0 not in ids[:-1]


# --- nucleus ------------------------------------------------------------------------------------------------


def test_the_nucleus_is_drawn_from_in_proportion() -> None:
    chain = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    chains, seeds = [chain] * 4000, list(range(4000))
    drawn = written(chains, [9], seeds, num_beams=1, max_new_tokens=1, top_p=0.6)
    shares = torch.bincount(torch.tensor(drawn)[:, 0], minlength=4) / 4000
    assert shares[2:].tolist() == [0.0, 0.0]  # the first two hold 0.7
    assert abs(shares[0] - 4 / 7) < 0.03  # 3.8 standard deviations
    whole = written(chains, [9], seeds, num_beams=1, max_new_tokens=1, top_p=1.0)
    assert torch.bincount(torch.tensor(whole)[:, 0], minlength=4).min() > 300


def test_a_nucleus_of_one_token_is_greedy(llm: str, model: InstructBlip) -> None:
    sampled = model.generate(**prompt_batch(llm), **NUCLEUS | {"top_p": 1e-6})
    assert torch.equal(sampled, model.generate(**prompt_batch(llm), **GREEDY))


def test_a_draw_depends_on_its_seed_alone(llm: str, model: InstructBlip) -> None:
    state = torch.get_rng_state()
    drawn = model.generate(**prompt_batch(llm), **NUCLEUS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(model.generate(**prompt_batch(llm), **NUCLEUS), drawn)
    assert not torch.equal(model.generate(**prompt_batch(llm), **NUCLEUS | {"seeds": [6, 7, 8]}), drawn)


# --- against itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("search", [GREEDY, BEAM, LONG, NUCLEUS], ids=["greedy", "beam", "long", "nucleus"])
def test_a_batch_equals_its_rows(llm: str, model: InstructBlip, search: dict[str, Any], scope: str) -> None:
    search = search | PENALTY | {"repetition_scope": scope}
    together = model.generate(**prompt_batch(llm), **search)
    for row in range(3):
        given = search | {"seeds": search["seeds"][row : row + 1]} if "seeds" in search else search
        alone = model.generate(**row_of(prompt_batch(llm), row), **given)[0].tolist()
        assert together[row].tolist() == alone + [PAD] * (together.size(1) - len(alone))


@pytest.mark.parametrize("beams", [1, 5])
def test_the_prompt_is_read_once_for_all_beams(llm: str, model: InstructBlip, beams: int) -> None:
    seen: list[tuple[int, int]] = []
    part = model.llm.model.get_encoder() if llm == "t5" else model.llm.model.model
    part.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(tuple(output.last_hidden_state.shape[:2])), with_kwargs=True
    )
    batch = prompt_batch(llm)
    model.generate(**batch, **GREEDY | {"num_beams": beams, "min_new_tokens": 7})
    width = 4 + batch["input_ids"].size(1)
    assert seen == [(3, width)] + ([] if llm == "t5" else [(3 * beams, 1)] * 6)


def test_length_penalty_and_minimum_matter(llm: str, model: InstructBlip) -> None:
    batch = prompt_batch(llm)
    short, long, minimum = (
        [len(until_eos(row)) for row in model.generate(**batch, **search).tolist()]
        for search in (SHORT, LONG, SHORT | {"min_new_tokens": 4})
    )
    assert sum(short) < sum(long)
    assert min(short) == 3 < min(minimum)


def test_answers_are_padded_with_pad(llm: str, model: InstructBlip) -> None:
    rows = model.generate(**prompt_batch(llm), **SHORT).tolist()
    assert any(EOS in row[:-1] for row in rows)
    for row in rows:
        assert set(row[len(until_eos(row)) :]) <= {PAD}


# --- wrong settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"max_new_tokens": 0, "min_new_tokens": 0}, "max_new_tokens=0"),
        ({"min_new_tokens": 8}, "min_new_tokens=8, max_new_tokens=7"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0: must be above 0"),
        ({"repetition_scope": "prompt"}, r"unknown repetition_scope 'prompt' \(known: all, generated\)"),
        ({"beam_length": "with_stat"}, "did you mean 'with_start'"),
        ({"top_p": 1.5}, r"top_p=1.5: .* in \(0, 1\]"),
        ({"top_p": 0.9, "num_beams": 5}, "top_p=0.9 samples one response, num_beams is 5; set it to 1"),
        ({"top_p": 0.9}, "a seed for each of 3 rows, none given"),
        ({"top_p": 0.9, "seeds": [1]}, "a seed for each of 3 rows, 1 given"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str, model: InstructBlip, llm: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(**prompt_batch(llm), **GREEDY | wrong)


# --- shown while it is written --------------------------------------------------------------------------------


class Listening:
    def __init__(self) -> None:
        self.tokens: list[Tensor] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        self.tokens.append(value)

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("search", [GREEDY, GREEDY | PENALTY, NUCLEUS], ids=["greedy", "penalty", "nucleus"])
def test_a_streamer_sees_the_ids_that_generate_returns(llm: str, model: InstructBlip, search: dict[str, Any]) -> None:
    batch, listening = prompt_batch(llm), Listening()
    ids = model.generate(**batch, **search, streamer=listening)
    seen = torch.stack(listening.tokens, dim=1)
    assert listening.ended == 1 and seen.shape == ids.shape and torch.equal(ids, model.generate(**batch, **search))
    assert [until_eos(row) for row in seen.tolist()] == [until_eos(row) for row in ids.tolist()]


def test_the_streamers_of_transformers_serve_too(model: InstructBlip, llm: str) -> None:
    class Tokenizer:
        def decode(self, ids: list[int]) -> str:
            return "".join(f"{id} " for id in ids)

    one = row_of(prompt_batch(llm), 0)
    streamer = TextIteratorStreamer(Tokenizer(), timeout=0)
    ids = model.generate(**one, **GREEDY, streamer=streamer)
    assert "".join(streamer).split() == [str(id) for id in ids[0].tolist()]


def test_nothing_is_shown_of_beams(model: InstructBlip, llm: str) -> None:
    with pytest.raises(ValueError, match=r"num_beams=5: .*needs num_beams=1"):
        model.generate(**prompt_batch(llm), **BEAM, streamer=Listening())
