"""The whole model against `transformers`' InstructBLIP with the same weights, and against itself.

Tolerance 1e-5: both compute in fp32 from the same weights, with numbers of order 1 to 10, and differ only in
the order of sums (logits of some or all positions, batches or rows, cached or whole prompts).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from instructblip.config import LLMConfig, ModelConfig, QFormerConfig, VisionConfig
from instructblip.models import llm as llm_module
from instructblip.models.instructblip import InstructBlip, build, trainable_names
from instructblip.models.qformer import QFormer
from instructblip.models.vision import VisionEncoder

from .conftest import (
    EOS,
    IMAGE_TOKEN,
    INSTRUCTIONS,
    PAD,
    images,
    oracle_name,
    oracle_of,
    padded,
    prompt_batch,
    shaken,
    tiny_config,
    training_batch,
    with_placeholders,
)

TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}
GREEDY: dict[str, Any] = {
    "num_beams": 1,
    "max_new_tokens": 7,
    "min_new_tokens": 1,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
}
BEAM: dict[str, Any] = GREEDY | {"num_beams": 5, "length_penalty": -1.0}
SHORT = BEAM | {"length_penalty": -4.0, "min_new_tokens": 2}
LONG = BEAM | {"length_penalty": 4.0}
CANDIDATES = [[[5], [6, 7, 8], [6, 7]], [[9, 2]], [[4], [2], [3, 4, 5, 6], [5]]]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def oracle_labels(batch: dict[str, Tensor], llm: str) -> Tensor:
    labels = batch["labels"]
    return labels if llm == "t5" else torch.cat((torch.full((len(labels), 4), -100), labels), dim=1)


def oracle_nll(logits: Tensor, labels: Tensor, llm: str) -> Tensor:
    """Per-token losses of the oracle's logits, laid out as ours."""
    if llm != "t5":
        logits = logits[:, -labels.size(1) - 1 : -1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


# --- parity -----------------------------------------------------------------------------------------------


def test_features_equal_the_oracles(llm: str, model: InstructBlip) -> None:
    batch = training_batch(llm)
    pixels = with_placeholders(batch, model)["pixel_values"]
    asked = batch["qformer_input_ids"], batch["qformer_attention_mask"]
    theirs = oracle_of(model, tiny_config(llm)).get_image_features(pixels, *asked)
    seen = model.ln_vision(model.vision(batch["pixel_values"]))
    close(seen, theirs.vision_outputs.last_hidden_state)
    close(model.qformer(model.query_tokens, seen, *asked), theirs.qformer_outputs.last_hidden_state[:, :4])
    close(model.query_embeds(batch["pixel_values"], *asked), theirs.pooler_output)


def test_instruction_unaware_queries_equal_the_oracles(llm: str) -> None:
    """BLIP-2's Q-Former is the oracle's without text."""
    config = tiny_config(llm, instruction_aware=False)
    model = shaken(build(config, seed=0))
    batch = training_batch(llm)
    seen = model.ln_vision(model.vision(batch["pixel_values"]))
    ours = model.qformer(model.query_tokens, seen, batch["qformer_input_ids"], batch["qformer_attention_mask"])
    oracle = oracle_of(model, config).qformer
    theirs = oracle(None, query_embeds=model.query_tokens.expand(3, -1, -1), encoder_hidden_states=seen)
    close(ours, theirs.last_hidden_state)


def test_loss_and_gradients_equal_the_oracles(llm: str, model: InstructBlip) -> None:
    batch, oracle = training_batch(llm), oracle_of(model, tiny_config(llm))
    labels = batch["labels"]
    asked = with_placeholders(batch, model) | {"labels": oracle_labels(batch, llm)}
    theirs = oracle(**asked)
    ours = model(**batch)
    close(ours, oracle_nll(theirs.logits, labels, llm))
    mean = ours.sum() / (labels != -100).sum()
    close(mean, theirs.loss)
    mean.backward()
    theirs.loss.backward()
    expected = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[oracle_name(name)].grad, **TOLERANCE, msg=name)
    last = "qformer.layers.2.text_ffn."
    assert not any(expected[oracle_name(n)].grad.any() for n, _ in model.named_parameters() if n.startswith(last))


def eager_to_end(model: InstructBlip) -> InstructBlip:
    """Makes EOS win now and then, so that answers differ in length and the length penalty has something to do."""
    with torch.no_grad():
        model.llm.model.get_output_embeddings().weight[EOS] *= 3
    return model


def until_eos(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


@pytest.mark.parametrize("search", [GREEDY, BEAM, SHORT, LONG], ids=["greedy", "beam", "short", "long"])
def test_generated_ids_equal_the_oracles(llm: str, model: InstructBlip, search: dict[str, Any]) -> None:
    batch = prompt_batch(llm)
    asked = with_placeholders(batch, eager_to_end(model))
    if llm == "t5":  # a tiny T5 says one word for ever; for a causal model the oracle would punish the prompt's words
        search = search | {"repetition_penalty": 1.5}
    theirs = oracle_of(model, tiny_config(llm)).generate(**asked, **search)
    theirs = theirs[:, 1:] if llm == "t5" else theirs[:, asked["input_ids"].size(1) :]
    ours = model.generate(**batch, **search)
    assert [until_eos(row) for row in ours.tolist()] == [until_eos(row) for row in theirs.tolist()]
    assert len({tuple(row) for row in ours.tolist()}) > 1  # the pictures and prompts matter


def test_length_penalty_and_minimum_matter(llm: str, model: InstructBlip) -> None:
    batch = prompt_batch(llm)
    short, long, minimum = (
        [len(until_eos(row)) for row in eager.generate(**batch, **search).tolist()]
        for eager in [eager_to_end(model)]
        for search in (SHORT, LONG, SHORT | {"min_new_tokens": 4})
    )
    assert sum(short) < sum(long)
    assert min(short) == 3 < min(minimum)


def test_answers_are_padded_with_pad(llm: str, model: InstructBlip) -> None:
    rows = eager_to_end(model).generate(**prompt_batch(llm), **SHORT).tolist()
    assert any(EOS in row[:-1] for row in rows)
    for row in rows:
        assert set(row[len(until_eos(row)) :]) <= {PAD}


# --- against itself ---------------------------------------------------------------------------------------


def test_a_batch_equals_its_rows(llm: str, model: InstructBlip) -> None:
    together = model(**training_batch(llm)).sum(dim=1)
    search = BEAM | {"repetition_penalty": 1.5}
    generated = model.generate(**prompt_batch(llm), **search)
    ranked = model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    for row in range(3):
        one = range(row, row + 1)
        close(model(**training_batch(llm, one)).sum(), together[row])
        alone = model.generate(**prompt_batch(llm, one), **search)[0].tolist()
        assert generated[row].tolist() == alone + [0] * (generated.size(1) - len(alone))
        close(model.rank(**prompt_batch(llm, one), candidates=CANDIDATES[row : row + 1])[0], ranked[row])


def test_padding_side_of_prompts_is_free(model: InstructBlip, llm: str) -> None:
    left = prompt_batch(llm)
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(left["input_ids"], left["attention_mask"], strict=True)]
    right = left | dict(zip(("input_ids", "attention_mask"), padded(rows), strict=True))
    assert model.generate(**left, **BEAM).tolist() == model.generate(**right, **BEAM).tolist()
    for a, b in zip(model.rank(**left, candidates=CANDIDATES), model.rank(**right, candidates=CANDIDATES), strict=True):
        close(a, b)


def test_a_row_may_have_no_prompt(model: InstructBlip, llm: str) -> None:
    batch = prompt_batch(llm)
    batch["attention_mask"][1] = 0
    alone = prompt_batch(llm, range(1, 2))
    alone |= {"input_ids": alone["input_ids"][:, :0], "attention_mask": alone["attention_mask"][:, :0]}
    close(model.rank(**batch, candidates=CANDIDATES)[1], model.rank(**alone, candidates=CANDIDATES[1:2])[0])


def test_image_index_equals_repeating_pictures(llm: str, model: InstructBlip) -> None:
    batch = training_batch(llm)
    index = torch.tensor([1, 0, 1])
    shared = batch | {"pixel_values": images(2, seed=5)}
    repeated = batch | {"pixel_values": images(2, seed=5)[index]}
    close(model(**shared, image_index=index), model(**repeated))
    assert not torch.allclose(model(**shared, image_index=1 - index), model(**repeated), atol=1e-2)


def test_rank_equals_whole_forwards(llm: str, model: InstructBlip, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    monkeypatch.setattr(llm_module, "CANDIDATES_PER_FORWARD", 2)
    chunked = model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    for row in range(3):
        batch = prompt_batch(llm, range(row, row + 1))
        for candidate, score, again in zip(CANDIDATES[row], whole[row], chunked[row], strict=True):
            labels = torch.tensor([candidate])
            asked = batch | {"labels": labels}
            if llm != "t5":
                ids = torch.cat((batch["input_ids"], labels), dim=1)
                asked |= {
                    "input_ids": ids,
                    "attention_mask": torch.ones_like(ids),
                    "labels": torch.cat((torch.full_like(batch["input_ids"], -100), labels), dim=1),
                }
            close(-model(**asked).sum(), score)
            close(again, score)


def test_prompt_is_evaluated_once(model: InstructBlip, llm: str) -> None:
    counted: list[int] = []
    part = model.llm.model.get_encoder() if llm == "t5" else model.llm.model
    part.register_forward_hook(
        lambda module, args, kwargs, output: counted.append(kwargs.get("inputs_embeds") is not None),
        with_kwargs=True,
    )
    model.rank(**prompt_batch(llm), candidates=CANDIDATES)
    assert sum(counted) == 1


def test_video_is_its_frames_one_after_the_other(llm: str, model: InstructBlip) -> None:
    clips = torch.stack((images(3, seed=1), images(3, seed=2)), dim=1)  # (3, 2, 3, S, S)
    batch = prompt_batch(llm)
    asked = batch["qformer_input_ids"], batch["qformer_attention_mask"]
    frames = [model.query_embeds(clips[:, frame], *asked) for frame in range(2)]
    close(model.query_embeds(clips, *asked), torch.cat(frames, dim=1))
    video = batch | {"pixel_values": clips}
    assert model(**training_batch(llm) | {"pixel_values": clips}).isfinite().all()
    assert len(model.generate(**video, **BEAM)) == 3
    still, picture = batch | {"pixel_values": clips[:, :1]}, batch | {"pixel_values": clips[:, 0]}
    of_video, of_still, of_picture = (
        model.rank(**asked, candidates=CANDIDATES)[0] for asked in (video, still, picture)
    )
    close(of_still, of_picture)
    assert not torch.allclose(of_video, of_still, atol=1e-2)


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")
def test_repetition_penalty_is_for_generated_tokens_alone(model: InstructBlip, llm: str) -> None:
    """The oracle is the language model's own generate, a row at a time: embeddings hold no ids to punish."""
    batch, search = prompt_batch(llm), GREEDY | {"repetition_penalty": 1.5}
    queries = model.query_embeds(batch["pixel_values"], batch["qformer_input_ids"], batch["qformer_attention_mask"])
    text = model.llm.model.get_input_embeddings()(batch["input_ids"])
    ours = model.generate(**batch, **search)
    for row, mask in enumerate(batch["attention_mask"].bool()):
        embeds = torch.cat((queries[row], text[row, mask]))[None]
        theirs = model.llm.model.generate(inputs_embeds=embeds, do_sample=False, **search)
        assert ours[row].tolist() == theirs[0, 1 if llm == "t5" else 0 :].tolist()
    assert ours.tolist() != model.generate(**batch, **GREEDY).tolist()


def test_without_targets_the_loss_is_zero_and_has_a_gradient(llm: str, model: InstructBlip) -> None:
    batch = training_batch(llm)
    nll = model(**batch | {"labels": torch.full_like(batch["labels"], -100)})
    nll.sum().backward()
    assert nll.shape == batch["labels"].shape and not nll.any()


# --- what learns ------------------------------------------------------------------------------------------


def test_what_is_trained(model: InstructBlip) -> None:
    names = trainable_names(model)
    assert {name.split(".")[0] for name in names} == {
        "ln_vision",
        "query_tokens",
        "qformer",
        "language_projection",
    }
    untrained = {name for name, _ in model.named_parameters()} - set(names)
    between = {name for name in untrained if not name.startswith(("vision.", "llm."))}
    ffn = "qformer.layers.2.text_ffn."
    assert between == {f"{ffn}{part}.{kind}" for part in ("up", "down", "norm") for kind in ("weight", "bias")}


def test_frozen_parts_do_not_move_and_the_rest_learns(llm: str, model: InstructBlip) -> None:
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model.train()
    assert not any(module.training for part in (model.vision, model.llm) for module in part.modules())
    assert model.qformer.dropout.training
    model(**training_batch(llm)).sum().backward()
    optimizer.step()
    moved = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved <= set(trainable_names(model))
    # A key's bias adds the same to all scores of a query: its gradient is zero but for rounding.
    assert all(name.endswith("key.bias") for name in set(trainable_names(model)) - moved)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_frozen_vision_keeps_no_graph(model: InstructBlip) -> None:
    assert not model.vision(images(1)).requires_grad


def test_unfreeze_and_freeze_by_config(llm: str) -> None:
    config = tiny_config(llm)
    everything = build(replace(config, unfreeze=["vision", "llm"]), seed=0)
    everything(**training_batch(llm)).sum().backward()
    assert everything.vision.encoder.training and everything.llm.model.training
    assert all(p.grad is not None for p in everything.parameters() if p.requires_grad)
    assert not any(n.startswith("ln_") for n in trainable_names(build(replace(config, freeze_ln_vision=True), seed=0)))
    with pytest.raises(ValueError, match=r"unknown part to unfreeze 'vison'; did you mean 'vision'"):
        build(replace(config, unfreeze=["vison"]), seed=0)


def test_instruction_unaware_is_blind_to_the_instruction(llm: str) -> None:
    model = shaken(build(tiny_config(llm, instruction_aware=False), seed=0))
    batch = training_batch(llm)
    ids, mask = padded([[9, 9], *INSTRUCTIONS[1:]])
    close(model(**batch), model(**batch | {"qformer_input_ids": ids, "qformer_attention_mask": mask}))
    assert not any(part in name for name in trainable_names(model) for part in ("text_ffn", "word_", "position_"))


# --- sizes and weights ------------------------------------------------------------------------------------


def test_paper_sizes() -> None:
    with torch.device("meta"):
        config = ModelConfig(
            vision=VisionConfig(type="instructblip_vision_model"),
            qformer=QFormerConfig(tokenizer=""),
            llm=LLMConfig(type="llama", config={"pad_token_id": 0, "eos_token_id": 2, "num_hidden_layers": 1}),
        )
        vision = VisionEncoder(config.vision)
        llm = llm_module.language_model(config.llm)
        model = InstructBlip(config, vision, QFormer(config.qformer, vision.width), llm)
    sizes = {name: p.numel() for name, p in model.named_parameters() if not name.startswith(("vision.", "llm."))}
    assert llm.model.config.hidden_size == 4096
    assert sum(p.numel() for p in vision.parameters()) == 985_949_440  # PAPER A.2, with the key bias of transformers
    assert sum(sizes.values()) == 188_837_376  # PAPER A.6
    assert sum(sizes[name] for name in trainable_names(model)) == 184_113_408  # less one feed-forward


def test_weights_follow_the_seed_alone(llm: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(tiny_config(llm), seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = (build(tiny_config(llm), seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    drawn = [n for n, t in first.items() if t.dim() > 1 and not torch.equal(t, other[n])]
    assert len(drawn) == sum(t.dim() > 1 for t in first.values())


def loaded_from(folder: Path, config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        random_init=False,
        init=str(folder / "between.safetensors"),
        vision=replace(config.vision, weights=str(folder / "vision.safetensors")),
        llm=replace(config.llm, weights=str(folder / "llm")),
    )


def test_weights_from_files_and_folders(llm: str, tmp_path: Path) -> None:
    config = tiny_config(llm)
    saved = shaken(build(config, seed=0))
    between = {n: t for n, t in saved.state_dict().items() if not n.startswith(("vision.", "llm."))}
    save_file(between, tmp_path / "between.safetensors")
    save_file(saved.vision.encoder.state_dict(), tmp_path / "vision.safetensors")
    saved.llm.model.save_pretrained(tmp_path / "llm")
    loaded = build(loaded_from(tmp_path, config), seed=1)
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    unaware = replace(loaded_from(tmp_path, config), qformer=replace(config.qformer, instruction_aware=False))
    assert torch.equal(build(unaware, seed=1).query_tokens, saved.query_tokens)  # the text branch is passed over
    between["stray"] = between.pop("query_tokens")
    save_file(between, tmp_path / "between.safetensors")
    with pytest.raises(ValueError, match=r"missing: \['query_tokens'\]; unexpected: \['stray'\]"):
        build(loaded_from(tmp_path, config), seed=1)


def test_every_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vision.weights=.*vision.*llm.weights=.*llm.*model.init="):
        build(loaded_from(tmp_path, tiny_config()), seed=0)


# --- wrong input ------------------------------------------------------------------------------------------


def test_rows_that_do_not_match(llm: str, model: InstructBlip) -> None:
    batch = training_batch(llm)
    with pytest.raises(ValueError, match="2 rows of pictures for 3 rows of text"):
        model(**batch | {"pixel_values": images(2)})
    with pytest.raises(ValueError, match="3 rows of pictures for 2 rows of text"):
        model(**batch | {name: batch[name][:2] for name in ("input_ids", "attention_mask", "labels")})


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([[[5]], [[6]]], "2 lists of candidates for 3 rows"),
        ([[[5]], [], [[6]]], "row 1 has 0 candidates"),
        ([[[5]], [[6], [], []], [[6]]], r"row 1: candidates \[1, 2\] of 3 have 0 tokens"),
    ],
)
def test_candidates_that_cannot_be_ranked(candidates: list[list[list[int]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(tiny_config(), seed=0).rank(**prompt_batch("llama"), candidates=candidates)


def test_the_placeholder_is_the_oracles_alone(llm: str) -> None:
    assert not (training_batch(llm)["input_ids"] == IMAGE_TOKEN).any()
