"""Examples are drawn for runs of the embedded world, and none of their scenes was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from instructblip.demo.examples import ALBUM, SEED, drawn, examples
from instructblip.evaluation.subject import Subject
from instructblip.miniature.albums import Sizes, pictures
from instructblip.miniature.scenes import Role


def test_every_picture_has_a_question_that_its_scene_answers(tmp_path: Path) -> None:
    found = drawn(8, tmp_path)
    assert len({each.image for each in found}) == 8 and len({each.options for each in found}) == 4
    for each in found:
        assert Image.open(each.image).size == (48, 48)
        assert each.instruction.startswith("Question: ") and each.instruction.endswith("? Short answer:")
    assert all(picture.scene.role is Role.evaluation for picture in pictures(ALBUM, SEED, Sizes(given={ALBUM: 8})))
    assert drawn(2, tmp_path) == drawn(2, tmp_path)


@pytest.mark.parametrize(("config", "count"), [("experiment: [miniature]", 3), ("experiment: [vicuna7b]", 0)])
def test_only_a_run_of_the_embedded_world_is_offered_some(tmp_path: Path, config: str, count: int) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(config)
    assert len(examples(Subject("one", run, "", None), 3, tmp_path)) == count


def test_a_checkpoint_of_others_is_offered_none(tmp_path: Path) -> None:
    assert examples(Subject("released/x", tmp_path, "", tmp_path), 3, tmp_path) == []
