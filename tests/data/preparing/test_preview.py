"""The preview: what the model reads and is taught stands on the page, and nothing in the data becomes HTML."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.config.preparing import PrepareConfig
from instructblip.data.collate import Collator
from instructblip.data.preparing.manifest import table_facts
from instructblip.data.preparing.preview import Previewer
from instructblip.data.sample import Answer, Candidates, Sample
from instructblip.data.tables import Table, table_path, write_table
from instructblip.files import read_json, write_json
from instructblip.models.tokenizers import is_encoder_decoder, tokenizers
from tests.conftest import World, composed


def config(world: World, data: Path, *overrides: str) -> PrepareConfig:
    """A config over a copy of the prepared tables; the pictures stay where they are."""
    shutil.copytree(world.data / "tables", data / "tables")
    (data / "media").symlink_to(world.data / "media")
    return composed("prepare", "recipe=all", f"paths.data={data}", *overrides)


def page(recipe: str, config: PrepareConfig, *splits: str) -> str:
    collator = Collator.of(config.model, tokenizers(config.model), is_encoder_decoder(config.model.llm))
    return Previewer(recipes.load(recipe), config, collator).write(splits).read_text()


def put(path: Path, sample: Sample) -> None:
    """The Sample in place of a prepared split's rows."""
    write_table(path, [sample])
    manifest = path.with_name("manifest.json")
    facts = read_json(manifest)
    facts["splits"][path.stem]["table"] = table_facts(path)
    write_json(manifest, facts)


def tokens(text: str, kind: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(rf'class="token {kind}" title="id \d+">([^<]*)<', text)]


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_the_mask_is_the_collators(world: World, tmp_path: Path, model: str) -> None:
    text = page("vqav2", config(world, tmp_path, "preview_rows=1", f"model={model}"), "train")
    table = Table(table_path(world.data, "vqav2", "train"))
    uid = re.search(r"<code>(.*?)</code>", text)
    assert uid and table.sample(0).uid.startswith("vqav2/train/")
    sample = next(each for each in map(table.sample, range(len(table))) if each.uid == uid[1])
    said = "".join(tokens(text, "target")).replace("\u00b7", " ").strip()
    assert said in [answer.text for answer in sample.answers], "exactly the response is a target"
    assert tokens(text, "end") == ["</s>"]
    assert sample.slots["question"] in html.unescape(text)
    assert ("<dt>decoder</dt>" in text) == (model == "tiny_t5")
    assert all(f">vqa-{number:02d}<" in text for number in range(1, 11)), "all templates for the first row"


def test_an_evaluation_split_is_asked_and_not_taught(world: World, tmp_path: Path) -> None:
    text = page("vsr", config(world, tmp_path, "preview_rows=2"), "test")
    assert not tokens(text, "target") and not tokens(text, "end")
    assert "profile paper" in text and "profile lavis" in text
    assert text.count("(a) no or false") == text.count("(b) yes or true") == 2 and text.count('class="right"') == 2


def test_rows_are_drawn_by_the_seed(world: World, tmp_path: Path) -> None:
    pages = [
        page("vqav2", config(world, tmp_path / name, f"preview_seed={seed}"), "train")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    found = [re.findall(r"<code>(.*?)</code>", text) for text in pages]
    assert pages[0] == pages[1] and found[0] != found[2] and len(set(found[0])) == 8


def test_data_cannot_become_html(world: World, tmp_path: Path) -> None:
    bad = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\"'"
    settings = config(world, tmp_path)
    path = table_path(tmp_path, "vqav2", "train")
    sample = Table(path).sample(0)
    planted = replace(
        sample, uid=f"vqav2/train/{bad}", slots={"question": bad}, answers=(Answer(bad, 1, (bad,), bad),),
        candidates=Candidates((bad, bad)), gold=0, meta={bad: bad},
    )  # fmt: skip
    put(path, planted)
    text = page("vqav2", settings, "train")
    assert "<script" not in text and "onerror=alert" in text and "<img src=x" not in text
    assert "{{ 7 * 7 }}" in html.unescape(text), "data is no template either"
    assert "default-src 'none'" in text and not re.search(r"(src|href)=\"?http", text), "self-contained"


def test_a_lost_picture_is_said(world: World, tmp_path: Path) -> None:
    settings = config(world, tmp_path, "preview_rows=1")
    path = table_path(tmp_path, "vqav2", "train")
    sample = Table(path).sample(0)
    put(path, replace(sample, media=(replace(sample.media[0], key="gone"),)))
    assert "coco/gone: not in the media pool" in page("vqav2", settings, "train")


def test_the_manifest_is_told(world: World, tmp_path: Path) -> None:
    settings = config(world, tmp_path)
    path = tmp_path / "tables/vqav2/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["dropped"] = {"<b>why</b>": {"count": 1234, "first": []}}
    path.write_text(json.dumps(manifest))
    text = page("vqav2", settings, "train")
    assert "left out: 1,234 &lt;b&gt;why&lt;/b&gt;" in text and "443,757 are official" in text
