"""The whole model against itself: batches, sharing, video, ranking, what learns, and wrong input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from instructblip.models.instructblip import InstructBlip, build, trainable_names

from .conftest import (
    BEAM,
    CANDIDATES,
    INSTRUCTIONS,
    close,
    images,
    padded,
    prompt_batch,
    shaken,
    tiny_config,
    training_batch,
)

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


def test_without_frames_the_language_model_reads_the_text_alone(model: InstructBlip, llm: str) -> None:
    batch = prompt_batch(llm) | {"pixel_values": None, "image_embeds": torch.empty(3, 0, 0, 0)}
    greedy = BEAM | {"num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 4}
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    theirs = model.llm.model.generate(**text, do_sample=False, max_new_tokens=4, min_new_tokens=1)
    ours = model.generate(**batch, **greedy)
    assert ours.tolist() == theirs[:, 1 if llm == "t5" else text["input_ids"].size(1) :].tolist()
    for scores, candidates in zip(model.rank(**batch, candidates=CANDIDATES), CANDIDATES, strict=True):
        assert len(scores) == len(candidates) and scores.isfinite().all()
    batch["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="no picture and no text"):
        model.rank(**batch, candidates=CANDIDATES)


def test_image_index_equals_repeating_pictures(llm: str, model: InstructBlip) -> None:
    batch = training_batch(llm)
    index = torch.tensor([1, 0, 1])
    shared = batch | {"pixel_values": images(2, seed=5)}
    repeated = batch | {"pixel_values": images(2, seed=5)[index]}
    close(model(**shared, image_index=index), model(**repeated))
    assert not torch.allclose(model(**shared, image_index=1 - index), model(**repeated), atol=1e-2)


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
