"""InstructBLIP's two relatives in `transformers`: BLIP-2, which gives its queries no text, and InstructBlipVideo.

Tolerance 1e-5, as in `test_parity.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipVideoConfig,
    InstructBlipVideoForConditionalGeneration,
)

from instructblip.config.model import ModelConfig
from instructblip.models.instructblip import InstructBlip, build

from .conftest import (
    BEAM,
    IMAGE_TOKEN,
    OURS_ALONE,
    PAD,
    close,
    images,
    oracle_name,
    prompt_batch,
    shaken,
    tiny_config,
    training_batch,
    until_eos,
    with_placeholders,
)

FRAMES = 4


def relative_of(model: InstructBlip, config: ModelConfig, config_class: Any, model_class: Any, **names: Any) -> Any:
    """A relative with the same weights, in eval mode."""
    text = AutoConfig.for_model(config.llm.type, **config.llm.config)
    text.decoder_start_token_id = PAD
    relative = model_class(
        config_class(
            vision_config={**config.vision.config, "image_size": config.vision.image_size},
            qformer_config={name: value for name, value in vars(config.qformer).items() if name not in OURS_ALONE},
            text_config=text,
            num_query_tokens=config.qformer.num_query_tokens,
            **names,
        )
    )
    norm = "qformer.layernorm." if config_class is Blip2Config else "qformer.embeddings.layernorm."
    state = {
        oracle_name(name).replace("qformer.embeddings.layernorm.", norm): t for name, t in model.state_dict().items()
    }
    relative.load_state_dict(state, strict=True)
    return relative.eval()


def their_nll(logits: Tensor, labels: Tensor, llm: str) -> Tensor:
    if llm != "t5":
        logits = logits[:, -labels.size(1) - 1 : -1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def without_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if not name.startswith("qformer_")}


@pytest.fixture
def unaware(llm: str) -> tuple[InstructBlip, Any]:
    config = tiny_config(llm, instruction_aware=False)
    model = shaken(build(config, seed=0))
    return model, relative_of(model, config, Blip2Config, Blip2ForConditionalGeneration, image_token_index=IMAGE_TOKEN)


def test_blip2_sees_and_scores_the_same(llm: str, unaware: tuple[InstructBlip, Any]) -> None:
    (model, blip2), batch = unaware, training_batch(llm)
    asked = without_text(with_placeholders(batch, model))
    features = blip2.get_image_features(asked["pixel_values"])
    close(model.ln_vision(model.vision(batch["pixel_values"])), features.vision_outputs.last_hidden_state)
    ours = model.query_embeds(batch["pixel_values"], batch["qformer_input_ids"], batch["qformer_attention_mask"])
    close(ours, features.pooler_output)
    labels = asked.pop("labels")
    if llm == "t5":
        asked["labels"] = labels
    theirs = their_nll(blip2(**asked).logits, labels, llm)
    close(model(**batch), theirs)
    assert theirs.count_nonzero() == (labels != -100).sum()


def test_blip2_answers_the_same(llm: str, unaware: tuple[InstructBlip, Any]) -> None:
    (model, blip2), batch = unaware, prompt_batch(llm)
    asked = without_text(with_placeholders(batch, model))
    search = BEAM | {"repetition_penalty": 1.5 if llm == "t5" else 1.0}
    theirs = blip2.generate(**asked, **search)
    theirs = theirs[:, 1:] if llm == "t5" else theirs[:, asked["input_ids"].size(1) :]
    ours = model.generate(**batch, **search)
    assert [until_eos(row) for row in ours.tolist()] == [until_eos(row) for row in theirs.tolist()]


def test_videos_see_and_score_the_same(llm: str, model: InstructBlip) -> None:
    video = relative_of(
        model,
        tiny_config(llm),
        InstructBlipVideoConfig,
        InstructBlipVideoForConditionalGeneration,
        video_token_index=IMAGE_TOKEN,
    )
    batch = training_batch(llm) | {"pixel_values": images(3 * FRAMES).unflatten(0, (3, FRAMES))}
    asked = with_placeholders(batch, model, queries=4 * FRAMES)
    text = {name: batch[name] for name in ("qformer_input_ids", "qformer_attention_mask")}
    features = video.get_video_features(asked["pixel_values"], **text)
    close(model.query_embeds(batch["pixel_values"], **text), features.pooler_output)
    labels = asked.pop("labels")
    if llm == "t5":
        asked["labels"] = labels
    close(model(**batch), their_nll(video(**asked).logits, labels, llm))
    still = batch | {"pixel_values": batch["pixel_values"][:, :1].repeat_interleave(FRAMES, dim=1)}
    assert not torch.allclose(model(**batch), model(**still)), "the later frames matter"
