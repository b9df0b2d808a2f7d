"""The numbers in metrics.csv: what a row covers, and that its columns outlive a resume."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip.config.training import TrainConfig
from instructblip.training.callbacks.metrics import append_row, keep_rows, read_metrics
from tests.training.test_training import logged, train

Tiny = Callable[..., TrainConfig]


def test_a_row_is_the_mean_of_its_steps(tiny: Tiny) -> None:
    each, pairs = train(tiny("name=each")), train(tiny("name=pairs", "trainer.log_every=2"))
    single = logged(each, "train/loss")
    assert logged(pairs, "step") == [2, 4]
    assert logged(pairs, "train/loss") == pytest.approx([sum(single[:2]) / 2, sum(single[2:]) / 2], rel=1e-6)
    for share in ("loss_share", "gradient_share"):
        both = zip(*(logged(each, f"train/{share}/{name}") for name in ("coco_caption", "vqav2")), strict=True)
        assert [sum(pair) for pair in both] == pytest.approx([1] * 4, abs=1e-6)
    assert all(0 <= wait < 1 for wait in logged(each, "speed/data_wait"))
    rates = zip(logged(each, "speed/samples_per_s"), logged(each, "speed/tokens_per_s"), strict=True)
    assert all(tokens > 4 * samples > 0 for samples, tokens in rates)
    assert all(0.05 < memory < 50 for memory in logged(each, "memory/host_gib"))
    assert all(0 < tflops < 10 for tflops in logged(each, "speed/tflops_per_s"))
    assert logged(each, "memory/gpu_gib") == logged(each, "speed/mfu") == [None] * 4


def test_columns_stay_and_redone_rows_go(tmp_path: Path) -> None:
    path, columns = tmp_path / "metrics.csv", ["step", "train/loss", "train/loss/late"]
    keep_rows(path, columns, last=0)
    for step in (2, 4, 6):
        append_row(path, columns, {"step": step, "train/loss": 1.5})
    with path.open("a") as file:
        file.write("8,")  # cut short by a crash
    keep_rows(path, columns, last=4)
    append_row(path, columns, {"step": 6, "train/loss/late": 2})
    with path.open() as file:
        assert next(csv.reader(file)) == columns
    assert [row["step"] for row in read_metrics(path)] == ["2", "4", "6"]
    assert [row["train/loss/late"] for row in read_metrics(path)] == ["", "", "2"]
