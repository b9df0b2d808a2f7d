"""Weights from and for other programs: the table of names, folders of `transformers`, files of LAVIS, two stages."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipVideoConfig,
    InstructBlipVideoForConditionalGeneration,
)

from instructblip.config.model import ModelConfig
from instructblip.models import lavis
from instructblip.models.checkpoint import load_trained, write_trainable
from instructblip.models.instructblip import InstructBlip, build, trainable_names
from instructblip.models.rename import renamed
from instructblip.models.weights import is_text, read, read_init

from .conftest import IMAGE_TOKEN, VOCABULARY, oracle_name, oracle_of, shaken, tiny_config
from .test_parity_family import relative_of


def same(one: InstructBlip, other: InstructBlip) -> None:
    state = other.state_dict()
    assert list(state) == list(one.state_dict())
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def from_init(config: ModelConfig, init: Any, **llm: Any) -> ModelConfig:
    """The config with every weight from `init`."""
    return replace(
        config,
        random_init=False,
        init=init if isinstance(init, list) else str(init),
        llm=replace(config.llm, config=config.llm.config | llm),
    )


def between(model: InstructBlip) -> dict[str, Tensor]:
    return {name: t for name, t in model.state_dict().items() if not name.startswith(("vision.", "llm."))}


# --- names ------------------------------------------------------------------------------------------------


def test_every_name_has_its_place_in_each_column(llm: str, model: InstructBlip) -> None:
    state = model.state_dict()
    theirs = renamed(state, "ours", "instructblip", "here")
    assert list(theirs) == [oracle_name(name) for name in state]
    for column in ("instructblip", "blip-2", "lavis"):
        there = renamed(state, "ours", column, "here")
        assert len(there) == len(state)
        assert list(renamed(there, column, "ours", "there")) == list(state)


def test_the_names_of_lavis() -> None:
    """Those of PAPER H.2, letter by letter."""
    ours = (
        "query_tokens", "ln_vision.bias", "language_projection.weight", "qformer.norm.bias",
        "qformer.layers.3.self_attention.key.weight", "qformer.layers.2.cross_attention.norm.bias",
        "qformer.layers.0.text_ffn.up.bias", "qformer.layers.0.query_ffn.norm.weight",
        "vision.encoder.embeddings.class_embedding", "vision.encoder.encoder.layers.11.self_attn.projection.bias",
    )  # fmt: skip
    theirs = renamed({name: torch.zeros(1) for name in ours}, "ours", "lavis", "here", llm="t5")
    assert list(theirs) == [
        "query_tokens", "ln_vision.bias", "t5_proj.weight", "Qformer.bert.embeddings.LayerNorm.bias",
        "Qformer.bert.encoder.layer.3.attention.self.key.weight",
        "Qformer.bert.encoder.layer.2.crossattention.output.LayerNorm.bias",
        "Qformer.bert.encoder.layer.0.intermediate.dense.bias",
        "Qformer.bert.encoder.layer.0.output_query.LayerNorm.weight",
        "visual_encoder.cls_token", "visual_encoder.blocks.11.attn.proj.bias",
    ]  # fmt: skip


def test_unknown_names_are_listed_and_strays_passed_over_by_name() -> None:
    stray = {
        "embeddings.position_ids": torch.zeros(1),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(1),
    }
    heads = {
        "temp": torch.zeros(1),
        "itm_head.weight": torch.zeros(1),
        "Qformer.cls.predictions.decoder.bias": torch.zeros(1),
    }
    twins = {"Qformer.cls.predictions.bias": torch.zeros(1), "Qformer.cls.predictions.decoder.weight": torch.zeros(1)}
    unknown = {"language_projection.wheight": torch.zeros(1), "qformer.encoder.layer.0.attention.odd": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"F holds 2 tensors .*: language_projection.wheight, qformer\S+odd$"):
        renamed(stray | unknown, "instructblip", "ours", "F")
    assert set(renamed(heads | twins, "lavis", "ours", "F")) == {"temperature", "itm_head.weight", "lm_head.bias"}


# --- folders of transformers ------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_instructblip_folders_are_read(llm: str, shard: str, model: InstructBlip, tmp_path: Path) -> None:
    config = tiny_config(llm)
    oracle_of(model, config).save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    loaded = build(from_init(config, tmp_path), seed=1)
    same(model, loaded)
    assert trainable_names(loaded) == trainable_names(model)
    with pytest.raises(ValueError, match="holds vision as well as"):
        build(replace(from_init(config, tmp_path), vision=replace(config.vision, weights=str(tmp_path))), seed=1)


@pytest.mark.parametrize("rows", [VOCABULARY, VOCABULARY + 4], ids=["one row", "padded"])
def test_the_placeholders_row_is_cut(llm: str, rows: int, model: InstructBlip, tmp_path: Path) -> None:
    config = tiny_config(llm)
    oracle = oracle_of(model, config)  # <image> is 59
    oracle.resize_token_embeddings(rows)
    oracle.config.text_config.vocab_size = rows
    oracle.save_pretrained(tmp_path)
    loaded = build(from_init(config, tmp_path, vocab_size=IMAGE_TOKEN), seed=1)
    table = model.llm.model.get_input_embeddings().weight
    assert torch.equal(loaded.llm.model.get_input_embeddings().weight, table[:IMAGE_TOKEN])
    with pytest.raises(ValueError, match=rf"other shape: .*\({rows}, 16\) for \({IMAGE_TOKEN - 1}, 16\)"):
        build(from_init(config, tmp_path, vocab_size=IMAGE_TOKEN - 1), seed=1)


def test_video_and_blip2_folders_are_read(llm: str, model: InstructBlip, tmp_path: Path) -> None:
    config, unaware = tiny_config(llm), tiny_config(llm, instruction_aware=False)
    video = relative_of(
        model, config, InstructBlipVideoConfig, InstructBlipVideoForConditionalGeneration, video_token_index=IMAGE_TOKEN
    )
    video.save_pretrained(tmp_path / "video")
    same(model, build(from_init(config, tmp_path / "video"), seed=1))
    blind = shaken(build(unaware, seed=0))
    blip2 = relative_of(blind, unaware, Blip2Config, Blip2ForConditionalGeneration, image_token_index=IMAGE_TOKEN)
    blip2.save_pretrained(tmp_path / "blip2")
    same(blind, build(from_init(unaware, tmp_path / "blip2"), seed=1))
    with pytest.raises(ValueError, match=r"does not fit the model; missing: .*word_embeddings.weight.*text_ffn"):
        build(from_init(config, tmp_path / "blip2"), seed=1)


def test_a_folder_that_lacks_or_adds_a_tensor_is_refused(model: InstructBlip, tmp_path: Path, llm: str) -> None:
    config = tiny_config(llm)
    oracle_of(model, config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    embedding = next(name for name in whole if name.endswith(("embed_tokens.weight", "shared.weight")))
    for lost in (embedding, "query_tokens", "vision_model.encoder.layers.1.mlp.fc1.bias"):
        save_file({name: t for name, t in whole.items() if name != lost}, file)
        with pytest.raises(ValueError, match="does not fit the model; missing: "):
            build(from_init(config, tmp_path), seed=1)
    save_file(whole | {"language_model.odd": torch.zeros(1), "qformer.embeddings.position_ids": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"model.init does not fit the model; unexpected: odd$"):
        build(from_init(config, tmp_path), seed=1)


# --- files of LAVIS ---------------------------------------------------------------------------------------


def lavis_pieces(model: InstructBlip, llm: str, folder: Path) -> None:
    """What LAVIS has of a model, written by PAPER H.2 and H.3 alone."""
    trimmed, eva = {}, {}
    for name, tensor in model.state_dict().items():
        theirs = oracle_name(name)
        if name.startswith("vision."):
            theirs = theirs.removeprefix("vision_model.encoder.").removeprefix("vision_model.embeddings.")
            for one, other in (("layers.", "blocks."), ("layer_norm", "norm"), ("self_attn.", "attn."), ("projection", "proj"),
                               ("class_embedding", "cls_token"), ("position_embedding", "pos_embed"), ("patch_embedding", "patch_embed.proj")):  # fmt: skip
                theirs = theirs.replace(one, other)
            if theirs.endswith("qkv.bias"):
                query, _, value = tensor.chunk(3)
                eva |= {theirs.replace("qkv.bias", "q_bias"): query, theirs.replace("qkv.bias", "v_bias"): value}
            else:
                eva[theirs] = tensor
        elif not name.startswith("llm."):
            theirs = theirs.replace("vision_model.post_layernorm", "ln_vision").replace("qformer.", "Qformer.bert.", 1)
            theirs = theirs.replace("embeddings.layernorm", "embeddings.LayerNorm").replace(
                "attention.attention.", "attention.self."
            )
            theirs = theirs.replace("language_projection", "t5_proj" if llm == "t5" else "llm_proj")
            trimmed[theirs] = tensor
    trimmed["Qformer.bert.embeddings.position_ids"] = torch.arange(16)[None]
    eva |= {"blocks.2.norm1.weight": torch.zeros(24), "norm.bias": torch.zeros(24), "head.weight": torch.zeros(3, 24)}
    torch.save({"model": trimmed, "epoch": 3}, folder / "trimmed.pth")
    torch.save(eva, folder / "eva_vit_g.pth")
    model.llm.model.save_pretrained(folder / "llm")


def of_pieces(config: ModelConfig, folder: Path, trimmed: str = "trimmed.pth") -> ModelConfig:
    config = from_init(config, folder / trimmed)
    config.llm.weights = str(folder / "llm")
    return replace(config, vision=replace(config.vision, weights=str(folder / "eva_vit_g.pth")))


def without_key_bias(model: InstructBlip) -> InstructBlip:
    with torch.no_grad():
        for layer in model.vision.encoder.encoder.layers:
            layer.self_attn.qkv.bias.chunk(3)[1].zero_()
    return model


@pytest.fixture(params=[True, False], ids=["aware", "unaware"])
def config(request: pytest.FixtureRequest, llm: str) -> ModelConfig:
    return tiny_config(llm, instruction_aware=request.param)


def test_the_pieces_of_lavis_are_read(llm: str, config: ModelConfig, tmp_path: Path) -> None:
    model = without_key_bias(shaken(build(config, seed=0)))
    lavis_pieces(model, llm, tmp_path)
    same(model, build(of_pieces(config, tmp_path), seed=1))


def test_lavis_and_back(llm: str, config: ModelConfig, tmp_path: Path) -> None:
    model = without_key_bias(shaken(build(config, seed=0)))
    lavis.write_lavis(model.state_dict(), config.vision.type, llm, tmp_path)
    model.llm.model.save_pretrained(tmp_path / "llm")
    same(model, build(of_pieces(config, tmp_path, lavis.BETWEEN_FILE), seed=1))
    with torch.no_grad():
        model.vision.encoder.encoder.layers[1].self_attn.qkv.bias[30] = 0.5
    with pytest.raises(ValueError, match=r"visual_encoder.blocks.1.attn.qkv.bias: LAVIS has no bias for keys.* 0.5"):
        lavis.write_lavis(model.state_dict(), config.vision.type, llm, tmp_path)
    with pytest.raises(ValueError, match="unknown vision type of LAVIS 'clip_vision_model'"):
        lavis.write_lavis(model.state_dict(), "clip_vision_model", llm, tmp_path)


def test_lavis_size_of_the_papers_vit() -> None:
    """PAPER A.2: 985,894,528, without the key bias of transformers."""
    from transformers import InstructBlipVisionConfig, InstructBlipVisionModel

    with torch.device("meta"):
        vit = InstructBlipVisionModel(InstructBlipVisionConfig())
    state = {
        f"vision.encoder.{n}": torch.zeros(()).expand(t.shape)
        for n, t in vit.state_dict().items()
        if "post_layernorm" not in n
    }
    assert sum(tensor.numel() for tensor in state.values()) == 985_949_440
    assert sum(tensor.numel() for tensor in lavis.to_lavis(state, "llama").values()) == 985_894_528


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])
def test_a_hostile_file_runs_nothing(zipped: bool, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "x.pth"
    torch.save({"model": {"query_tokens": Hostile(marker)}}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x.pth is refused"):
        read(str(file))
    assert not marker.exists()
    file.write_bytes(pickle.dumps({"model": Hostile(marker)}))
    with pytest.raises(ValueError, match=r"x.pth is refused"):
        lavis.read_eva(str(file), depth=2)
    assert not marker.exists()
    torch.save({"model": {"query_tokens": "a word"}}, file)
    with pytest.raises(ValueError, match="holds no dict of tensors"):
        read(str(file))


# --- where weights come from ------------------------------------------------------------------------------


def test_two_stages_give_each_tensor_its_source(llm: str, tmp_path: Path) -> None:
    config, unaware = tiny_config(llm), tiny_config(llm, instruction_aware=False)
    one, two = shaken(build(config, seed=1)), without_key_bias(shaken(build(unaware, seed=2)))
    lavis_pieces(two, llm, tmp_path)
    first = lavis.to_lavis({n: t for n, t in between(one).items() if "language" not in n}, llm)
    heads = {
        "Qformer.cls.predictions.bias": torch.zeros(5),
        "temp": torch.tensor(0.07),
        "vision_proj.weight": torch.zeros(3, 20),
    }
    torch.save({"model": first | heads}, tmp_path / "one.pth")
    both = [str(tmp_path / "one.pth"), str(tmp_path / "trimmed.pth")]
    pair = replace(of_pieces(config, tmp_path), init=both)
    loaded = build(pair, seed=3)
    expected = one.state_dict() | {name: t for name, t in two.state_dict().items() if not is_text(name)}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    sources = read_init(pair).sources
    assert sources == {name: both[0] if is_text(name) else both[1] for name in between(loaded)}
    assert sum(is_text(name) for name in sources) == 2 + 3 * 6  # two embeddings and a feed-forward in each layer
    build(replace(pair, qformer=unaware.qformer), seed=3)
    with pytest.raises(ValueError, match=r"trimmed.pth has no text branch; give BLIP-2's first stage first"):
        build(replace(pair, init=both[::-1]), seed=3)
    whole = lavis.to_lavis(between(shaken(build(config, seed=2))), llm)
    torch.save({"model": whole}, tmp_path / "two.pth")  # a second stage with a text branch: it is not read
    with_text = build(replace(pair, init=[both[0], str(tmp_path / "two.pth")]), seed=3)
    assert all(torch.equal(t, expected[name]) for name, t in with_text.state_dict().items() if is_text(name))
    del whole["query_tokens"]
    torch.save({"model": whole}, tmp_path / "two.pth")  # and nothing but text is read from the first
    with pytest.raises(ValueError, match=r"does not fit the model; missing: query_tokens$"):
        build(replace(pair, init=[both[0], str(tmp_path / "two.pth")]), seed=3)
    with pytest.raises(ValueError, match=r"model.init names 3 files"):
        build(replace(pair, init=[*both, both[0]]), seed=3)


def test_a_run_starts_from_another_only_on_the_same_base(llm: str, model: InstructBlip, tmp_path: Path) -> None:
    config, file = tiny_config(llm), tmp_path / "trained.safetensors"
    trained = build(config, seed=0)
    with torch.no_grad():
        trained.query_tokens += 1
    write_trainable(trained, file)
    same(trained, build(replace(config, init=str(file)), seed=0))
    for refused in (
        lambda: build(replace(config, init=str(file)), seed=1),
        lambda: load_trained(build(config, seed=1), file),
    ):
        with pytest.raises(
            ValueError, match=r"trained on the frozen base (\w{12}), this model has the base (?!\1)\w{12}"
        ):
            refused()


def test_a_checkpoint_of_unfrozen_backbones_brings_them(llm: str, tmp_path: Path) -> None:
    config, file = tiny_config(llm), tmp_path / "pretrained.safetensors"
    pretrained = shaken(build(replace(config, unfreeze=["vision", "llm"]), seed=0))
    write_trainable(pretrained, file)
    tuned = build(replace(config, init=str(file)), seed=1)
    same(pretrained, tuned)
    assert tuned.frozen == ("vision", "llm")
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.zero_()
    same(pretrained, build(replace(config, init=str(file)), seed=1))  # the file is left as it was


def test_no_weight_is_drawn_by_accident(llm: str, model: InstructBlip, tmp_path: Path) -> None:
    config, file = tiny_config(llm), tmp_path / "between.safetensors"
    save_file(between(model), file)
    with pytest.raises(ValueError, match=r"does not hold vision; set model.vision.weights"):
        build(from_init(config, file), seed=0)
    half = {name: tensor.half() for name, tensor in between(model).items()}
    save_file(half, file)
    loaded = build(replace(config, init=str(file)), seed=0)
    assert all(p.dtype == torch.float32 for n, p in loaded.named_parameters() if n in half)
    for bad, said in (("x.bin", "neither a folder nor"), ("empty", "has no config.json")):
        path = tmp_path / bad
        path.mkdir() if bad == "empty" else path.touch()
        with pytest.raises(ValueError, match=said):
            build(replace(config, init=str(path)), seed=0)
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match="holds a model of type 'llava', not instructblip"):
        build(replace(config, init=str(tmp_path / "empty")), seed=0)


PEAK = """
import re, sys
from pathlib import Path
from instructblip.models.huggingface import model_config
from instructblip.models.instructblip import build
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
config = model_config(Path(sys.argv[1]))
before = peak()
model = build(config, seed=0)
print(sum(float(p.sum()) for p in model.parameters()))  # every page is touched
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of resident memory from /proc")
def test_loading_makes_no_second_copy(tmp_path: Path) -> None:
    config = tiny_config()
    config.llm.config |= {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 5,
        "vocab_size": 8000,
        "num_attention_heads": 8,
    }
    model = build(config, seed=0)
    oracle_of(model, config).save_pretrained(tmp_path, max_shard_size="50MB")
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 1024
    assert size > 100_000  # KB
    del model
    with_tokenizer(tmp_path)
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1])
    assert 0.9 * size < peak < 1.25 * size, f"peak {peak} kB over a model of {size:.0f} kB"


def with_tokenizer(folder: Path) -> None:
    from instructblip.models.tokenizers import tokenizers
    from tests.conftest import composed

    tokenizers(composed("train", "experiment=miniature/scratch").model).llm.save_pretrained(folder)
