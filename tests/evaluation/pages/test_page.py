"""The page holds what the run directories hold, text of the data is only text, and its size has a bound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructblip.data.shards import append
from instructblip.evaluation.pages.examples import drawn, examples
from instructblip.evaluation.pages.page import write_report
from instructblip.evaluation.tables.results import results
from instructblip.files import read_json, write_json
from tests.conftest import composed
from tests.evaluation.conftest import World, picture, question

from .conftest import EVIL, asked, wicked


def page(world: World, **changes: object) -> str:
    config = asked(world, **changes)
    return write_report(config, results([], world.run.parent), world.run.parent / "report").read_text()


def test_curves_ledger_scores_and_facts_are_there(reported: World) -> None:
    text = page(reported)
    for expected in (
        "Training loss", "Learning rate", "Selection score", "Validation loss", "not what the mixture asks for",
        "Held-out scores", "Other scores", "hollow: control", "0123abc", "vqav2/train (12 samples)", "num_beams 5",
        "Runs in a synthetic world", "experiment:\n", "Table 1",
    ):  # fmt: skip
        assert expected in text, expected
    assert (
        "val/loss" not in text
        and text.count("<polyline") == 2 + 1 + 2 + 1
        and "nan" not in re.findall("points=.*", text)
    )
    assert 'class="control"' in text and not re.search(r'(src|href)="(?!data:|#)', text)


def test_examples_have_picture_prompt_answer_truth_and_error(reported: World) -> None:
    cards, missing = examples(results([], reported.run.parent), 20)
    assert not missing and {card.recipe for card in cards} == {"vqav2", "vsr"} and len(cards) == 7 + 11
    by_uid = {card.uid: card for card in cards}
    right, wrong = by_uid["vqav2/val/02"], by_uid["vqav2/val/06"]
    assert right.error == 0 and wrong.error == 1 and wrong.truth == "no idea (10)"
    assert (right.prompt, right.answers[0].text) == ("Question: How bright is 02? Short answer:", "080")
    assert all(card.pictures[0].url and card.pictures[0].url.startswith("data:image/jpeg") for card in cards)
    ranked = by_uid["vsr/test/00"].answers[0]
    assert ranked.text == "yes or true" and [text for text, _ in ranked.ranked] == ["yes or true", "no or false"]


def test_the_number_of_examples_is_a_setting_and_they_are_the_same_every_time(reported: World) -> None:
    found = results([], reported.run.parent)
    two, all_ = examples(found, 2)[0], examples(found, 99)[0]
    assert len(two) == 4 and {card.uid for card in two} < {card.uid for card in all_}
    assert examples(found, 0) == ([], []) and page(reported, examples=0).count("<article") == 0
    assert drawn(["b", "a", "c"], 2) != drawn(["d", "e", "f"], 2) or drawn(["a", "b", "c"], 1) in ([0], [1], [2])
    with pytest.raises(ValueError, match="examples=-1"):
        examples(found, -1)


def test_markup_in_the_data_stays_text(reported: World) -> None:
    append(reported.data / "media" / "coco", [(EVIL, picture(7))], shard_size=3)
    reported.prepare("vqav2", [question(0, EVIL), wicked()])
    reported.path("vqav2").unlink()
    reported.predict("vqav2")
    reported.score("vqav2")
    text = page(reported)
    assert "&lt;script&gt;document.title" in text and EVIL not in text and "<script>document" not in text
    assert text.count("<script>") == 1 and "script-src 'sha256-" in text and "default-src 'none'" in text


def test_predictions_that_were_not_scored_are_named_and_not_shown(reported: World) -> None:
    path = reported.path("vqav2")
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    text = page(reported)
    assert "is not what was scored: score again with predict=false" in text and 'data-recipe="vqav2"' not in text


def test_real_and_synthetic_runs_stand_apart(reported: World) -> None:
    other = reported.run.parent / "two"
    other.mkdir()
    config = (reported.run / "config.yaml").read_text()
    real = config.replace("- miniature/scratch", "- vicuna7b").replace("random_init: true", "random_init: false")
    (other / "config.yaml").write_text(real)
    text = page(reported)
    own, synthetic = text.split("Runs in a synthetic world</h2>", 1)
    assert '<h2 id="world1">Runs</h2>' in own and "two" in own and "one, paper" not in own
    assert "No scores yet" in own and "one, paper" in synthetic


def test_scores_of_a_part_of_a_split_have_a_panel_of_their_own(reported: World) -> None:
    assert "the first 5 alone" not in page(reported)
    for path in reported.run.glob("eval/*/*/scores.json"):
        write_json(path, {**read_json(path), "limit": 5})
    text = page(reported)
    assert "Held-out scores, the first 5 alone" in text and "No scores yet" not in text


def test_an_empty_world_shows_what_each_cell_needs(tmp_path: Path) -> None:
    config = composed("report", f"paths.runs={tmp_path}", "html=true")
    text = write_report(config, [], tmp_path / "report").read_text()
    assert "No run yet" in text and "needs `python train.py experiment=flant5xl`" in text
    assert "<article" not in text and "<polyline" not in text
