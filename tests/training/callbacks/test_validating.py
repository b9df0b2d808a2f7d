"""Validation: what it writes, and that training does not notice it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip.config.training import TrainConfig
from instructblip.training.callbacks.validating import _keep_samples
from instructblip.training.validation import Place
from tests.training.test_selection import CARVED
from tests.training.test_training import losses, same, stopped_at, train, weights

Tiny = Callable[..., TrainConfig]


def curve(run: Path) -> list[dict[str, str]]:
    with (run / "selection.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_with_validation_ends_with_the_very_weights_of_one_without(tiny: Tiny) -> None:
    common = (*CARVED, "model.qformer.hidden_dropout_prob=0.1", "trainer.checkpoint_every=2")
    without = train(tiny(*common, "name=without"))
    run = train(tiny(*common, "validation.every=2"))
    assert same(weights(without), weights(run)) and losses(without) == losses(run)

    rows = curve(run)
    assert [row["step"] for row in rows] == ["0", "2", "4"]
    assert all(row["selection"] == row["val/vqav2/vqa_accuracy:evalai"] != "" for row in rows)
    fallen = [float(row["val/vqav2/loss"]) for row in rows]
    assert fallen[0] > fallen[1] > fallen[2] and all(float(row["val/coco_caption/loss"]) > 0 for row in rows)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    each = len(samples) // 3
    assert [row["step"] for row in samples] == [0] * each + [2] * each + [4] * each
    assert len({row["picture"] for row in samples}) == each > 1
    assert samples[0]["uid"] == samples[each]["uid"] and samples[0]["instruction"].startswith("Question: ")
    assert samples[0]["picture"].startswith("coco/") and samples[0]["truth"] and "answer" in samples[0]


def test_what_is_done_again_is_dropped(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(*CARVED, "validation.every=1", "trainer.checkpoint_every=2", "resume=auto")
    with pytest.raises(InterruptedError):
        stopped_at(3, config)
    run = train(config)
    assert [row["step"] for row in curve(run)] == ["0", "1", "2", "3", "4"]
    steps = [json.loads(line)["step"] for line in (run / "samples.jsonl").read_text().splitlines()]
    assert steps == [step for step in range(5) for _ in range(len(steps) // 5)]

    path = tmp_path / "samples.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    _keep_samples(path, last=1)
    assert path.read_text() == '{"step": 1}\n'


def test_every_process_has_as_many_batches_and_each_counts_once() -> None:
    batches = list("abcde")
    shares = [Place(rank, 3).share(batches) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert sorted(batch for share in shares for batch, counts in share if counts) == batches
    assert shares[2][1] == ("e", False)
