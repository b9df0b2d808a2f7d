"""Every kind of language model, from its YAML to answers: labels, gradient, ranking, generation, a run's checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from instructblip.choices import PromptFormat
from instructblip.config.model import ModelConfig
from instructblip.data.collate import Collator
from instructblip.data.turns import IGNORE
from instructblip.models.checkpoint import base_fingerprint, trainable_state
from instructblip.models.instructblip import InstructBlip, build, trainable_names
from instructblip.training import checkpoint
from instructblip.training.state import TrainState
from tests.conftest import ROOT
from tests.fixtures.language_tokenizers import FAMILIES

from .conftest import BEAM, GREEDY, close, images, shaken
from .families import TEXTS, collator, inputs, llm_config, shrunk, training_rows

QUESTIONS = [instruction for instruction, _ in TEXTS]
DEEP = ("vicuna7b", "flant5xl", "opt2.7b", "qwen3_8b", "gemma_2b")


@dataclass
class Family:
    config: ModelConfig
    model: InstructBlip
    collate: Collator


@pytest.fixture(scope="module", params=DEEP)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    config = shrunk(request.param, tmp_path_factory.mktemp("tokenizers"))
    return Family(config, shaken(build(config, seed=0)), collator(config))


def test_every_yaml_has_a_stand_in_and_at_most_ten_lines() -> None:
    files = sorted((ROOT / "conf/model/llm").glob("*.yaml"))
    assert {file.stem for file in files} | {"gemma_2b"} == set(FAMILIES)
    assert all(len(file.read_text().splitlines()) <= 10 for file in files)


def test_the_loss_falls_on_the_response_and_its_end(family: Family) -> None:
    batch = training_rows(family.collate, TEXTS)
    assert batch.labels is not None
    nll = family.model(**inputs(batch), labels=batch.labels)
    assert torch.equal(nll > 0, batch.labels != IGNORE)
    supervised = [row[row != IGNORE].tolist() for row in batch.labels]
    assert supervised == family.collate.response_ids([response for _, response in TEXTS])


def test_ranking_scores_what_training_would(family: Family) -> None:
    """Padding on the other side, the prompt apart from its answer, and the queries at the same place."""
    batch = training_rows(family.collate, TEXTS)
    assert batch.labels is not None
    ends = 0 if family.collate.encoder_decoder else 1  # a causal candidate has no EOS
    with torch.no_grad():
        nll = family.model(**inputs(batch), labels=batch.labels)
    asked = family.collate.prompts(QUESTIONS, list(images(3)), range(3))
    candidates = [family.collate.candidate_ids([response, "blue"]) for _, response in TEXTS]
    for row, scores in enumerate(family.model.rank(**inputs(asked), candidates=candidates)):
        terms = nll[row][batch.labels[row] != IGNORE]
        # fp32: a sum of order 50 over ten tokens, each of logits that were summed in another order
        torch.testing.assert_close(scores[0], -terms[: len(terms) - ends].sum(), rtol=1e-5, atol=1e-5)


def test_a_batch_generates_what_its_rows_do(family: Family) -> None:
    asked = family.collate.prompts(QUESTIONS, list(images(3)), range(3))
    together = family.model.generate(**inputs(asked), **BEAM)
    for row, question in enumerate(QUESTIONS):
        alone = family.collate.prompts([question], [images(3)[row]], [0])
        ids = family.model.generate(**inputs(alone), **BEAM)[0].tolist()
        padding = [family.config.llm.config["pad_token_id"]] * (together.size(1) - len(ids))
        assert together[row].tolist() == ids + padding


def test_greedy_takes_the_likeliest_token(family: Family) -> None:
    asked = inputs(family.collate.prompts(QUESTIONS[:1], list(images(1)), [0]))
    first = family.model.generate(**asked, **GREEDY | {"max_new_tokens": 1, "min_new_tokens": 0})[0].tolist()
    rivals = [[token] for token in range(300) if [token] != first]
    (scores,) = family.model.rank(**asked, candidates=[[first, *rivals]])
    assert int(scores.argmax()) == 0


def test_the_queries_stand_before_the_instruction(family: Family) -> None:
    """Raw: before the whole text; chat: after BOS and the head of the user turn, also with padding on the left."""
    seen: list[torch.Tensor] = []
    model, llm = family.model, family.model.llm.model
    reader = llm.get_encoder() if family.collate.encoder_decoder else llm
    asked = inputs(family.collate.prompts(QUESTIONS, list(images(3)), range(3)))
    hook = reader.register_forward_pre_hook(lambda m, a, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True)
    model.rank(**asked, candidates=[[[5]]] * 3)
    hook.remove()
    with torch.no_grad():
        shown = asked["pixel_values"], asked["qformer_input_ids"], asked["qformer_attention_mask"]
        queries, text = model.query_embeds(*shown), llm.get_input_embeddings()(asked["input_ids"])
    chat = family.config.llm.prompt_format is PromptFormat.chat
    for row in range(3):
        own = text[row][asked["attention_mask"][row].bool()]
        at = len(family.collate._turn[0]) if chat else 0
        expected = torch.cat((own[:at], queries[row], own[at:]))
        start = 0 if family.collate.encoder_decoder else seen[0].size(1) - len(expected)
        close(seen[0][row, start : start + len(expected)], expected)


def test_exactly_what_lies_between_the_backbones_learns(family: Family) -> None:
    batch = training_rows(family.collate, TEXTS)
    model = family.model.train()
    model(**inputs(batch), labels=batch.labels).sum().backward()
    between = {name for name, _ in model.named_parameters() if not name.startswith(("vision.", "llm."))}
    unread = {name for name in between if name.startswith("qformer.layers.2.text_ffn.")}
    assert len(unread) == 6 and set(trainable_names(model)) == between - unread
    assert {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()} == between - unread
    model.zero_grad()
    model.eval()


def test_a_runs_checkpoint_comes_back(family: Family, tmp_path: Path) -> None:
    original = build(family.config, seed=0)
    with torch.no_grad():
        for name in trainable_names(original):
            original.get_parameter(name).add_(0.01)
    state = TrainState(trainable_state(original), {})
    checkpoint.save(tmp_path, checkpoint.Record(1, base_fingerprint(original)), state, keep=1)
    found = checkpoint.last_checkpoint(tmp_path)
    assert found is not None
    again = build(family.config, seed=0)
    found.load_weights(again)
    batch = training_rows(family.collate, TEXTS)
    with torch.no_grad():
        one, other = (each.eval()(**inputs(batch), labels=batch.labels) for each in (original, again))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="trained on the frozen base"):
        found.load_weights(build(family.config, seed=1))


def test_the_readmes_recipe_is_enough() -> None:
    config = llm_config("gemma_2b")
    assert (config.type, config.prompt_format, config.bos_token) == ("gemma", PromptFormat.chat, "<bos>")
