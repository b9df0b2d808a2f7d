"""Five lines from a run directory to answers, and every kind of picture."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy as np
import pytest
import torch
import transformers as theirs
from PIL import Image

from instructblip.config.model import LLMConfig, ModelConfig, QFormerConfig, VisionConfig
from instructblip.config.training import TrainConfig
from instructblip.data.processor import Processor
from instructblip.inference import Assistant, load
from instructblip.models.convert import convert, open_source
from instructblip.models.instructblip import InstructBlip
from instructblip.models.qformer import QFormer
from instructblip.models.vision import VisionEncoder
from instructblip.training.run import opened
from tests.conftest import ROOT
from train import fit

COUNTERPARTS: list[tuple[Callable[..., Any], Callable[..., Any], set[str]]] = [
    (theirs.InstructBlipProcessor.__call__, Processor.__call__, {"images", "text"}),
    (theirs.InstructBlipVisionModel.forward, VisionEncoder.forward, {"pixel_values", "interpolate_pos_encoding"}),
    (
        theirs.InstructBlipQFormerModel.forward, QFormer.forward,
        {"input_ids", "attention_mask", "query_embeds", "encoder_hidden_states"},
    ),
    (
        theirs.InstructBlipForConditionalGeneration.forward, InstructBlip.forward,
        {
            "pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask", "labels",
            "interpolate_pos_encoding",
        },
    ),
    (
        theirs.InstructBlipForConditionalGeneration.generate, InstructBlip.generate,
        {
            "pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask",
            "interpolate_pos_encoding",
        },
    ),
]  # fmt: skip
QUESTION = "What color is the circle?"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))


@pytest.fixture
def run(tiny: Callable[..., TrainConfig]) -> Path:
    with opened(tiny("steps=1")) as folder:
        fit(tiny("steps=1"), folder)
    return folder


@pytest.fixture
def assistant(run: Path) -> Assistant:
    return load(run)


def test_one_answer_several_and_a_ranking(assistant: Assistant) -> None:
    answer = assistant.answer(PICTURE, QUESTION)
    assert isinstance(answer, str) and answer == assistant.answer(PICTURE, QUESTION)
    drawn = assistant.answers(PICTURE, QUESTION, count=4, seed=3)
    assert drawn == assistant.answers(PICTURE, QUESTION, count=4, seed=3) and len({text for text, _ in drawn}) == len(
        drawn
    )
    ranked = assistant.rank(PICTURE, QUESTION, ["red", "blue", "red"])
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True) and {text for text, _ in ranked} == {"red", "blue"}
    again = dict(assistant.rank(PICTURE, QUESTION, [text for text, _ in drawn]))
    assert all(again[text] == pytest.approx(score, abs=1e-4) for text, score in drawn)


def test_an_answer_comes_while_it_is_written(assistant: Assistant) -> None:
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "repetition_penalty": 1.5}
    texts = list(assistant.stream(PICTURE, QUESTION, **settings))
    assert texts[-1] == assistant.answer(PICTURE, QUESTION, num_beams=1, **settings)
    assert len(texts) == 7 and texts[-2] == texts[-1] and len(set(texts)) > 2
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    with pytest.raises(ValueError, match="needs num_beams=1"):
        list(assistant.stream(PICTURE, QUESTION, num_beams=3))


def test_who_stops_listening_stops_the_writing(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, step, first_seen = [], assistant.model.llm.step, Event()

    def counted(*inputs: Any) -> Any:
        assert first_seen.wait(timeout=60)
        steps.append(None)
        return step(*inputs)

    monkeypatch.setattr(assistant.model.llm, "step", counted)
    texts = assistant.stream(PICTURE, QUESTION, max_new_tokens=200, min_new_tokens=200)
    next(texts)
    Timer(0.1, first_seen.set).start()
    texts.close()  # type: ignore[attr-defined]
    assert len(steps) == 1


def test_every_kind_of_picture_is_the_same_picture(assistant: Assistant, tmp_path: Path) -> None:
    path, array = tmp_path / "photo.png", np.asarray(PICTURE)
    PICTURE.save(path)
    kinds = [PICTURE, path, str(path), array, torch.from_numpy(array.copy()), array.transpose(2, 0, 1)]
    features = [assistant.features(kind, QUESTION) for kind in kinds]
    assert features[0].shape == (8, 64) and all(torch.equal(features[0], other) for other in features[1:])
    assert not torch.equal(features[0], assistant.features(PICTURE, "Where is the star?")), "the instruction matters"


def test_a_list_of_pictures_is_a_clip(assistant: Assistant) -> None:
    clip = [PICTURE, PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    frames = torch.cat([assistant.features(frame, QUESTION) for frame in clip])
    assert torch.allclose(assistant.features(clip, QUESTION), frames, atol=1e-5)
    assert assistant.answer(clip, QUESTION, max_new_tokens=2) is not None


def test_what_cannot_be_answered_is_refused(assistant: Assistant, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no picture that can be read"):
        assistant.answer(tmp_path / "nothing.jpg", QUESTION)
    with pytest.raises(ValueError, match=r"array of float64 \(4, 4\) is no picture"):
        assistant.answer(np.zeros((4, 4)), QUESTION)
    with pytest.raises(ValueError, match=r"instructions \[0\] of 1 are empty"):
        assistant.answer(PICTURE, " ")
    with pytest.raises(ValueError, match="0 candidates"):
        assistant.rank(PICTURE, QUESTION, [])
    with pytest.raises(ValueError, match="neither a folder of transformers nor a run"):
        load(tmp_path)


def test_the_same_model_from_its_run_and_from_a_hugging_face_folder(run: Path, tmp_path: Path) -> None:
    ours = load(run)
    ours.save_pretrained(tmp_path / "hf")
    with pytest.raises(ValueError, match="is there already"):
        ours.save_pretrained(tmp_path / "hf")
    exported = load(tmp_path / "hf")
    assert torch.allclose(ours.features(PICTURE, QUESTION), exported.features(PICTURE, QUESTION), atol=1e-4)
    pairs = [dict(each.rank(PICTURE, QUESTION, ["red", "blue"])) for each in (ours, exported)]
    assert pairs[0] == pytest.approx(pairs[1], abs=1e-3)
    theirs.InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "hf")
    theirs.InstructBlipProcessor.from_pretrained(tmp_path / "hf")


def test_adapters_are_merged_on_export(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    config = tiny("steps=2", "model.lora.targets=[llm.q_proj,qformer.query]", "model.unfreeze=[vision]", "optim.lr=0.1")
    with opened(config) as folder:
        fit(config, folder)
    adapted = load(folder)
    convert(open_source(folder), tmp_path / "hf", "hf")
    exported = load(tmp_path / "hf")
    assert not [name for name, _ in exported.model.named_parameters() if "lora" in name]
    pairs = [dict(each.rank(PICTURE, QUESTION, ["red", "blue"])) for each in (adapted, exported)]
    assert pairs[0] == pytest.approx(pairs[1], rel=1e-3)


def test_the_readmes_five_lines(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(from instructblip.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(ROOT)
    PICTURE.save(tmp_path / "photo.jpg")
    code = snippet.replace("runs/miniature-s42", str(run)).replace("photo.jpg", str(tmp_path / "photo.jpg"))
    code = code.replace('"exported"', repr(str(tmp_path / "exported")))
    results: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), results)
    assert isinstance(results["model"], Assistant)


@pytest.mark.parametrize(("their", "our", "names"), COUNTERPARTS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_counterparts_share_their_argument_names(
    their: Callable[..., Any], our: Callable[..., Any], names: set[str]
) -> None:
    for function in (their, our):
        assert names <= set(inspect.signature(function).parameters), function.__qualname__


def test_a_config_is_made_from_its_three_parts() -> None:
    vision, qformer, text = VisionConfig(image_size=48), QFormerConfig(num_query_tokens=4), LLMConfig(type="llama")
    made = ModelConfig.from_vision_qformer_text_configs(
        vision_config=vision, qformer_config=qformer, text_config=text, name="x"
    )
    assert (made.vision, made.qformer, made.llm, made.name) == (vision, qformer, text, "x")
    fields = set(theirs.InstructBlipQFormerConfig().to_dict()) & set(vars(qformer))
    assert {"vocab_size", "hidden_size", "num_hidden_layers", "cross_attention_frequency", "layer_norm_eps"} <= fields
