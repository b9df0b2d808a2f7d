"""Three kinds of models side by side: a run, its exported folder as transformers reads it, and a tiny LLaVA."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from instructblip.config.evaluation import ReportConfig
from instructblip.evaluation.qualitative import SETS, compare, read_set, set_path, transcript
from instructblip.inference import load
from instructblip.models.others import load_other
from tests.conftest import ROOT, World, composed, one_step

CHAT = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
EVIL = "<script>alert(1)</script> what color is it?"
SET = """title: T
source: ours
decoding: {{num_beams: 2, max_new_tokens: 4}}
items:
  - {{image: one.png, turns: ["What color is the circle?", "And the star?"]}}
  - {{media: {media}, turns: ["{evil}"]}}
"""


@pytest.fixture(scope="module")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    runs = tmp_path_factory.mktemp("runs")
    one_step(world, runs)
    return runs


@pytest.fixture(scope="module")
def exported(runs: Path) -> Path:
    load(runs / "run").save_pretrained(runs.parent / f"{runs.name}-hf")
    return runs.parent / f"{runs.name}-hf"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(ROOT / "instructblip/miniature/llm_tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = LlamaConfig(
        **sizes, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    vision = CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    token = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=token, vision_feature_layer=-1)
    )
    model.save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def questions(world: World, tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    from instructblip.data.tables import Table, table_path

    ref = Table(table_path(world.data, "vqav2", "val")).sample(0).media[0]
    path = tmp_path / "mine.yaml"
    path.write_text(SET.format(media=f"{ref.pool}/{ref.key}", evil=EVIL))
    return path


def asked(runs: Path, world: World, questions: Path | str, *models: str) -> ReportConfig:
    return composed(
        "report",
        f"paths.runs={runs}",
        f"paths.data={world.data}",
        f"compare=[{','.join(models)}]",
        f"set={questions}",
        "device=cpu",
    )


def test_all_answer_side_by_side_with_prompts_and_settings(
    runs: Path, exported: Path, llava: Path, questions: Path, world: World, tmp_path: Path
) -> None:
    text = compare(asked(runs, world, questions, "run", f"hf:{exported}", f"hf:{llava}"), tmp_path).read_text()
    assert (
        text.count('<div class="said">') == 3 * 3
        and "(tiny_llama)" in text
        and "(instructblip)" in text
        and "(llava)" in text
    )
    assert "num_beams 2, max_new_tokens 4" in text and text.count('src="data:image/jpeg') == 2
    assert EVIL not in text and "&lt;script&gt;alert(1)" in text and not re.search(r'(src|href)="(?!data:)', text)
    prompts = re.findall(r"<pre>(.*?)</pre>", text, re.S)
    first = re.findall(r'<div class="said">(.*?)</div>', text, re.S)
    assert prompts[0] == prompts[1] == "What color is the circle?"
    assert prompts[2] == "USER: &lt;image&gt; What color is the circle? ASSISTANT:"
    assert prompts[3].startswith("Dialog history: Question: What color is the circle? Answer: ")
    assert prompts[5].count("ASSISTANT:") == 2 and prompts[5].count("&lt;image&gt;") == 1
    assert first[0] and (tmp_path / "compare-mine.html").is_file()


def test_transformers_says_what_the_run_says(runs: Path, exported: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 48, 3), dtype=np.uint8))
    settings = {
        "num_beams": 1,
        "max_new_tokens": 4,
        "min_new_tokens": 1,
        "repetition_penalty": 1.0,
        "length_penalty": 0.0,
    }
    ours = load(runs / "run").answer(picture, "What color is it?", **settings)
    assert load_other(exported, "cpu").answer(picture, "What color is it?", **settings) == ours


def test_an_answer_does_not_repeat_the_prompt(llava: Path) -> None:
    other = load_other(llava, "cpu")
    prompt = other.prompt([], "What color is it?")
    said = other.answer(Image.new("RGB", (30, 40)), prompt, num_beams=1, max_new_tokens=3)
    assert "USER" not in said and "What color" not in said


def test_what_is_wrong_is_named_before_a_model_is_loaded(
    runs: Path, llava: Path, questions: Path, world: World, tmp_path: Path
) -> None:
    cases = [
        ((questions.with_name("none.yaml"), "run"), "none.yaml is not there"),
        (("miniatur", "run"), "did you mean 'miniature'|miniature"),
        (("photographs", "run"), "put the picture at .*photographs/storm.jpg"),
        ((questions, "nobody"), "neither a run directory nor the name"),
        ((questions, f"hf:{tmp_path}/nothing"), "is no folder"),
        ((questions, f"hf:{tmp_path}"), "has no config.json"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            compare(asked(runs, world, *map(str, arguments)), tmp_path)
    for line, message in (
        ("{image: a.png, media: p/k, turns: [x]}", "item 1: give image: FILE or media"),
        ("{media: key, turns: [x]}", "'key' is no POOL/KEY"),
        ("{image: a.png, turns: []}", "a turn is empty"),
        ("{image: a.png, turns: [x?, y]}", "mine.yaml is not valid YAML: while parsing"),
        ("{media: coco/none, turns: [x]}", "coco/none"),
        ("{media: gqa/none, turns: [x]}", "has no pool 'gqa'"),
    ):
        questions.write_text(f"title: T\nsource: S\nitems: [{line}]")
        with pytest.raises(ValueError, match=message):
            compare(asked(runs, world, str(questions), "run"), tmp_path)
    (llava / "chat_template.jinja").rename(llava / "away")
    with pytest.raises(ValueError, match="has no chat template"):
        load_other(llava, "cpu")
    (llava / "away").rename(llava / "chat_template.jinja")


def test_every_set_that_is_shipped_can_be_read() -> None:
    found = sorted(SETS.glob("*.yaml"))
    assert {path.stem for path in found} == {"miniature", "photographs"}
    assert all(read_set(set_path(path.stem)).items for path in found)
    assert transcript([], "What?") == "What?"
