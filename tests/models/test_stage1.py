"""BLIP-2's first stage: its masks, its losses against `transformers` and plain re-derivations, and where it leads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertForPreTraining, Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig

from instructblip.config.model import ModelConfig, Stage1Config
from instructblip.models.checkpoint import write_trainable
from instructblip.models.instructblip import build
from instructblip.models.rename import renamed
from instructblip.models.stage1 import CONTRAST, GENERATION, MATCHING, Sight, Stage1, build_stage1, hard_negatives

from .conftest import VISION, close, images, padded, tiny_config

IDS, MASK = padded([[3, 7, 9, 4], [3, 8, 4], [3, 11, 12, 13, 14, 4]])
CAPTIONS = {"input_ids": IDS, "attention_mask": MASK}
OWN = torch.arange(3)
DRAWS = torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def config(**changes: Any) -> ModelConfig:
    return replace(tiny_config(), stage1=Stage1Config(embed_dim=12), **changes)


@pytest.fixture
def model() -> Stage1:
    """Every weight moved off its start, in eval mode."""
    made, generator = build_stage1(config(), seed=0), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "temperature":
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


@pytest.mark.parametrize(
    ("sight", "rows"),
    [  # two queries, three words of which the last is padding; read as "who stands in this row sees ..."
        (CONTRAST, ["qq...", "qq...", "..tt.", "..tt.", "..tt."]),
        (MATCHING, ["qqtt.", "qqtt.", "qqtt.", "qqtt.", "qqtt."]),
        (GENERATION, ["qq...", "qq...", "qqt..", "qqtt.", "qqtt."]),
    ],
)
def test_the_three_masks(sight: Sight, rows: list[str]) -> None:
    seen = sight.mask(2, torch.tensor([[1, 1, 0]]))[0, 0]
    assert ["".join("qqttt"[i] if see else "." for i, see in enumerate(row)) for row in seen.tolist()] == rows


def oracle(model: Stage1) -> Blip2ForImageTextRetrieval:
    """`transformers`' retrieval model with the same weights."""
    ours = model.qformer.config
    qformer = Blip2QFormerConfig(
        vocab_size=ours.vocab_size, hidden_size=ours.hidden_size, num_hidden_layers=ours.num_hidden_layers,
        num_attention_heads=ours.num_attention_heads, intermediate_size=ours.intermediate_size,
        cross_attention_frequency=ours.cross_attention_frequency, encoder_hidden_size=VISION["hidden_size"],
        max_position_embeddings=ours.max_position_embeddings, use_qformer_text_input=True,
    )  # fmt: skip
    whole = Blip2Config(
        vision_config={**VISION, "image_size": 28, "layer_norm_eps": 1e-6, "qkv_bias": True}, qformer_config=qformer,
        num_query_tokens=ours.num_query_tokens, image_text_hidden_size=12, image_token_index=None,
    )  # fmt: skip
    theirs = Blip2ForImageTextRetrieval(whole).eval()
    state = {
        name: t for name, t in model.state_dict().items() if not name.startswith("lm_head.") and name != "temperature"
    }
    missing, unexpected = theirs.load_state_dict(renamed(state, "ours", "blip-2", "the model"), strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return theirs


def test_contrast_and_matching_are_those_of_transformers(model: Stage1) -> None:
    theirs = oracle(model)
    pixels = (images(3) / 255 - model.vision.mean) / model.vision.std
    with torch.no_grad():
        embeds = model.image_embeds(images(3))
        ours = model.similarities(*(features := model.features(embeds, **CAPTIONS)), *features)[0] * model.temperature
        close(ours, theirs(pixels, **CAPTIONS).logits_per_image)
        matched = theirs(pixels, **CAPTIONS, use_image_text_matching_head=True).logits_per_image
        close(model.match(embeds, **CAPTIONS), matched)


def test_what_is_written_reads_the_picture_and_earlier_words_alone(model: Stage1) -> None:
    embeds = model.image_embeds(images(3))
    nll = model.caption_nll(embeds, **CAPTIONS)  # (3, 5)
    assert torch.equal(nll != 0, MASK[:, 1:] == 1)
    other = IDS.clone()
    other[2, 3] = 20  # the third word written
    changed = (model.caption_nll(embeds, other, MASK)[2] - nll[2]).abs() > 1e-4
    assert changed.tolist() == [False, False, True, True, True]
    assert ((model.caption_nll(embeds.roll(1, 0), **CAPTIONS) - nll).abs() > 1e-4)[MASK[:, 1:] == 1].all()
    queries = [model._read(GENERATION, embeds, ids, MASK)[0] for ids in (IDS, other)]
    assert torch.equal(*queries)
    first = IDS.clone()
    first[:, 0] = 30
    assert torch.equal(model.caption_nll(embeds, first, MASK), nll), "[DEC] stands in for whatever is first"


def test_generation_word_by_word(model: Stage1) -> None:
    """Each word's loss from a sequence that ends before it, smoothed by hand."""
    embeds = model.image_embeds(images(3))[2:]
    ids = torch.cat((torch.tensor([[49]]), IDS[2:, 1:]), dim=1)
    for place in range(1, ids.size(1)):
        _, text = model._read(GENERATION, embeds, ids[:, :place], torch.ones(1, place))
        logits = model.lm_head(text[:, -1], model.qformer.word_embeddings.weight)[0]
        smoothed = -0.9 * logits.log_softmax(-1)[ids[0, place]] - 0.1 * logits.log_softmax(-1).mean()
        close(model.caption_nll(embeds, IDS[2:], MASK[2:])[0, place - 1], smoothed)


def losses(model: Stage1, order: list[int], **changes: Any) -> Any:
    inputs = {"pixel_values": images(3)[order], "input_ids": IDS[order], "attention_mask": MASK[order]}
    rows = torch.arange(len(order))
    return model(
        **inputs | changes,
        image_index=rows,
        own=torch.tensor(order),
        everyone=lambda x: x[torch.tensor(order).argsort()],
        draws=DRAWS,
    )


def test_the_three_losses_by_hand(model: Stage1) -> None:
    got = losses(model, [0, 1, 2])
    embeds = model.image_embeds(images(3))
    pictures, texts = model.features(embeds, **CAPTIONS)
    similarity = torch.tensor([[max((p @ t).item() for p in picture) for t in texts] for picture in pictures]) / 0.07
    ways = [F.cross_entropy(way, OWN, label_smoothing=0.1, reduction="none") for way in (similarity, similarity.T)]
    close(got.contrast, (ways[0] + ways[1]) / 2)
    picture, text = hard_negatives(similarity.T, OWN, DRAWS[0]), hard_negatives(similarity, OWN, DRAWS[1])
    for row in range(3):
        pairs = [(row, row, 1), (int(picture[row]), row, 0), (row, int(text[row]), 0)]
        by_hand = [-model.match(embeds[[i]], IDS[[t]], MASK[[t]])[0].log_softmax(-1)[fits] for i, t, fits in pairs]
        close(got.matching[row], torch.stack(by_hand).mean())
    assert got.found.tolist() == [
        ((similarity[i].argmax() == i).float() + (similarity[:, i].argmax() == i).float()).item() / 2 for i in range(3)
    ]


def test_the_order_in_which_rows_are_computed_changes_nothing(model: Stage1) -> None:
    """As when they are dealt to other ranks: the negatives are those of a row, not of a place in memory."""
    straight, turned = losses(model, [0, 1, 2]), losses(model, [2, 0, 1])
    for name in ("contrast", "matching", "generation"):
        close(getattr(turned, name), getattr(straight, name)[[2, 0, 1]])


def test_negatives_are_drawn_by_similarity_and_never_a_rows_own() -> None:
    similarity = torch.tensor([[9.0, 0.0, 1.0, -torch.inf], [0.0, 9.0, 0.0, 0.0]])
    draws = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    many = similarity.repeat(2000, 1)
    own = torch.tensor([0, 1]).repeat(2000)
    drawn = torch.stack([hard_negatives(many[i : i + 2], own[:2], draws[i : i + 2]) for i in range(0, 4000, 2)])
    shares = torch.stack([torch.bincount(column, minlength=4) / 2000 for column in drawn.T])
    wanted = torch.tensor([[0, 1 / (1 + torch.e), torch.e / (1 + torch.e), 0], [1 / 3, 0, 1 / 3, 1 / 3]])
    assert (shares - wanted).abs().max() < 0.04 and shares[0, 0] == shares[1, 1] == 0
    extremes = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert hard_negatives(torch.zeros(2, 2), torch.tensor([0, 1]), extremes).tolist() == [1, 0]


def test_everything_but_the_frozen_encoder_learns(model: Stage1) -> None:
    got = losses(model, [0, 1, 2])
    (got.contrast.mean() + got.matching.mean() + got.generation.sum()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    keys = [n for n in idle if n.endswith("key.bias")]  # softmax does not see what is added to every key
    assert all(name.startswith("vision.") for name in set(idle) - set(keys))
    assert model.train().vision.training is False and model.qformer.training
    free = build_stage1(config(unfreeze=["vision", "llm"]), seed=0)
    assert all(p.requires_grad for p in free.parameters()) and free.frozen == () and free.vision.training


def test_what_cannot_be_a_first_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction_aware=true"):
        build_stage1(replace(config(), qformer=replace(config().qformer, instruction_aware=False)), seed=0)
    with pytest.raises(ValueError, match="not clips"):
        build_stage1(config(), seed=0).image_embeds(torch.zeros(1, 4, 3, 28, 28))
    with pytest.raises(ValueError, match=r"vision.weights=None, model.qformer.weights=None"):
        build_stage1(config(random_init=False), seed=0)


# --- from BERT, and on to the second stage ---------------------------------------------------------------------


def test_it_begins_from_bert(tmp_path: Path) -> None:
    ours = config().qformer
    torch.manual_seed(3)
    bert = BertForPreTraining(
        BertConfig(
            vocab_size=ours.vocab_size - 1, hidden_size=ours.hidden_size, num_hidden_layers=ours.num_hidden_layers,
            num_attention_heads=ours.num_attention_heads, intermediate_size=ours.intermediate_size,
            max_position_embeddings=ours.max_position_embeddings,
        )
    ).eval()  # fmt: skip
    bert.cls.predictions.bias.data.normal_()
    bert.save_pretrained(tmp_path)
    model = build_stage1(replace(config(), qformer=replace(ours, weights=str(tmp_path))), seed=0).eval()
    ids, attention_mask = IDS[2:], MASK[2:]
    with torch.no_grad():
        segments = bert.bert.embeddings.token_type_embeddings.weight
        segments.zero_()  # the Q-Former has none
        theirs = bert(input_ids=ids, attention_mask=attention_mask).prediction_logits
        _, text = model._read(CONTRAST, model.image_embeds(images(1)), ids, attention_mask)
        close(model.lm_head(text, model.qformer.word_embeddings.weight)[..., :-1], theirs)
    drawn = build_stage1(config(), seed=0).state_dict()
    layer = model.qformer.layers[0]
    assert torch.equal(layer.query_ffn.up.weight, layer.text_ffn.up.weight)
    assert torch.equal(layer.cross_attention.query.weight, drawn["qformer.layers.0.cross_attention.query.weight"])
    assert torch.equal(model.qformer.word_embeddings.weight[-1], drawn["qformer.word_embeddings.weight"][-1])


def saved(model: Any, path: Path) -> str:
    write_trainable(model, path)
    return str(path)


def same(model: Any, names: list[str], tensors: dict[str, Tensor]) -> bool:
    return all(torch.equal(model.state_dict()[name], tensors[name]) for name in names)


@pytest.mark.parametrize("unfrozen", [[], ["vision"]])
def test_both_stages_lead_to_instruction_tuning(model: Stage1, tmp_path: Path, unfrozen: list[str]) -> None:
    """Stage 1 alone begins stage 2, the pair begins instruction tuning; a vision encoder trained in stage 1 goes along."""
    stage1 = build_stage1(config(unfreeze=unfrozen), seed=4)
    first = saved(stage1, tmp_path / "stage1.safetensors")
    vision = tmp_path / "vision.safetensors"
    save_file(stage1.vision.encoder.state_dict(), vision)
    given = config().vision if unfrozen else replace(config().vision, weights=str(vision))
    plain = replace(config(), vision=given, init=first, unfreeze=["llm"])
    stage2 = build(replace(plain, qformer=replace(plain.qformer, instruction_aware=False)), seed=5)
    early, late = stage1.state_dict(), stage2.state_dict()
    kept = [name for name in late if not name.startswith(("llm.", "language_projection."))]
    assert same(stage2, kept, early) and any(name.startswith("vision.") for name in kept)
    with torch.no_grad():
        for parameter in stage2.parameters():
            if parameter.requires_grad:
                parameter += 1
    tuned = build(replace(plain, init=[first, saved(stage2, tmp_path / "stage2.safetensors")], unfreeze=[]), seed=6)
    late = stage2.state_dict()
    assert same(tuned, list(late), late)
    text = [name for name in tuned.state_dict() if name not in late]
    assert same(tuned, text, early) and any("word_embeddings" in name for name in text)
    if not unfrozen:
        with pytest.raises(ValueError, match="was trained on the frozen base"):
            build(replace(plain, vision=config().vision), seed=9)  # draws another encoder


def test_a_first_stage_goes_on_from_its_own_file_and_from_lavis(model: Stage1, tmp_path: Path) -> None:
    again = build_stage1(config(init=saved(model, tmp_path / "s.safetensors")), seed=8)
    between = [name for name in model.state_dict() if not name.startswith("vision.")]
    assert same(again, between, model.state_dict())
    theirs = renamed({name: model.state_dict()[name] for name in between}, "ours", "lavis", "the model")
    twins = {"Qformer.cls.predictions.bias": torch.zeros(1), "Qformer.cls.predictions.decoder.weight": torch.zeros(1)}
    torch.save({"model": theirs | twins}, tmp_path / "blip2_pretrained.pth")
    official = build_stage1(config(init=str(tmp_path / "blip2_pretrained.pth")), seed=8)
    assert same(official, between, model.state_dict())
