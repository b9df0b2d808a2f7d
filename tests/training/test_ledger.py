"""The ledger: exact counts, one ledger however a run is split and stopped, and an alarm when the mixture is not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instructblip.config.training import TrainConfig
from instructblip.data.collate import Row
from instructblip.data.mixture import RandomDraw
from instructblip.data.steps import Step
from instructblip.data.templates import Example
from instructblip.files import read_json
from instructblip.training.checkpoint import last_checkpoint
from instructblip.training.datamodule import StepData, collator, training_set
from instructblip.training.ledger import ALARM, COUNTS, Ledger, chi_square
from tests.conftest import run_ranks
from tests.training.test_training import stopped_at, train

Tiny = Callable[..., TrainConfig]
KINDS = COUNTS[:3]


def kept(run: Path) -> dict[str, Any]:
    ledger: dict[str, Any] = read_json(run / "ledger.json")
    return ledger


def steps_of(config: TrainConfig) -> StepData:
    return StepData(config, training_set(config), collator(config, encoder_decoder=False), first=0)


def test_every_sample_and_token_is_counted(tiny: Tiny) -> None:
    """Against the texts themselves, tokenised one by one."""
    config = tiny("batch_size=12", "+mixture.factors={vqav2: 3.0}")
    ledger = kept(train(config))
    data = steps_of(config)
    tokenizer, seen = data.collator.llm_tokenizer, Counter[tuple[str, str, str]]()
    for number in range(4):
        for pick in data.reader.stream.step(number):
            example = data.reader.example(pick)
            cell = (example.recipe, example.template)
            prompt, response = tokenizer([example.instruction, example.response], add_special_tokens=False)["input_ids"]
            seen[*cell, "samples"] += 1
            seen[*cell, "instruction_tokens"] += len(prompt) + 1  # BOS
            seen[*cell, "answer_tokens"] += len(response) + 1  # EOS
    got = {
        (name, template, kind): counts[kind]
        for name, dataset in ledger["datasets"].items()
        for template, counts in dataset["templates"].items()
        for kind in KINDS
        if counts[kind]
    }
    assert got == dict(seen) and len(got) > 20
    captions = [counts for (name, _, kind), counts in seen.items() if (name, kind) == ("coco_caption", "answer_tokens")]
    assert ledger["tasks"]["image captioning"]["answer_tokens"] == sum(captions) > 0
    assert sum(dataset["samples"] for dataset in ledger["datasets"].values()) == 4 * 12
    assert sum(dataset["expected_samples"] for dataset in ledger["datasets"].values()) == pytest.approx(4 * 12)


def test_a_batch_says_what_it_holds(tiny: Tiny) -> None:
    """The counts of each row are those of its masks; a filler has none."""
    for family in (False, True):
        config = tiny()
        data = steps_of(config)
        data.collator = replace(data.collator, encoder_decoder=family)
        for rank in range(24):  # 8 samples: most ranks hold a filler
            (batch,) = data.steps(0, 1, rank, 24).read(0).batches
            for row, (prompt, response) in enumerate(batch.tokens):
                assert response == batch.loss_weight[row].sum()
                whole = int(batch.attention_mask[row].sum())
                assert (prompt == (whole if family else whole - response)) if response else prompt == 0


def test_turns_that_are_read_as_rows_are_of_one_sample(tiny: Tiny) -> None:
    """An encoder-decoder reads the conversation as three rows: three times the scene, and still one sample."""
    data = training_set(config := tiny())
    turns = (("What is left?", "A star."), ("What is right?", "Nothing."))
    talk = Example("What is there?", "Two things.", "vqav2", "", "talk", following=turns, context="A star, a circle.")
    plain = Example("What is there?", "A star.", "vqav2", "", "plain")
    counted = {}
    for family in (False, True):
        rows = [Row(talk, 0, place=0), Row(plain, 0, place=1)]
        batch = collator(config, family).training(rows, [torch.zeros(3, 48, 48, dtype=torch.uint8)])
        ledger = Ledger(data)
        ledger.add(Step(0, [batch], [], []))
        ledger.gather(lambda counts: counts)
        counted[family] = dict(zip(COUNTS, ledger.total.sum(0).tolist(), strict=True))
    assert counted[False]["samples"] == counted[True]["samples"] == 2
    assert counted[False]["answer_tokens"] == counted[True]["answer_tokens"] > 0
    assert counted[True]["instruction_tokens"] > counted[False]["instruction_tokens"]


def test_the_ledger_of_a_resumed_run_is_that_of_an_unbroken_one(tiny: Tiny) -> None:
    common = ["steps=9", "trainer.checkpoint_every=2"]
    whole = train(tiny(*common, "name=whole"))
    for stop, micro in ((3, 4), (7, 1)):
        with pytest.raises(InterruptedError):
            stopped_at(stop, tiny(*common, "name=parts", "resume=auto", f"trainer.micro_batch_size={micro}"))
        assert kept(Path(tiny().paths.runs) / "parts")["steps"] == stop // 2 * 2
    parts = train(tiny(*common, "name=parts", "resume=auto", "trainer.num_workers=2"))
    assert kept(parts) == kept(whole) and kept(whole)["steps"] == 9
    checkpoint = last_checkpoint(parts)
    assert checkpoint and checkpoint.ledger == kept(parts)


def test_two_processes_go_on_with_the_ledger_of_one(tiny: Tiny) -> None:
    whole = train(tiny("name=whole", "steps=6"))
    config = tiny("name=pair", "steps=6", "trainer.checkpoint_every=2", "resume=auto")
    config.experiment = ["miniature/scratch"]  # as the program that goes on will fill it in
    with pytest.raises(InterruptedError):
        stopped_at(3, config)
    run_ranks(
        2, "train.py", "experiment=miniature/scratch", "steps=6", "batch_size=8", "group_size=4", "name=pair", "resume=auto",
        "trainer.micro_batch_size=3", "trainer.num_workers=0", "trainer.checkpoint_every=2", "trainer.devices=2",
        "trainer.strategy=ddp", f"paths.data={config.paths.data}", f"paths.runs={config.paths.runs}",
    )  # fmt: skip
    assert kept(whole.with_name("pair")) == kept(whole)


def test_unreadable_pictures_are_counted_apart(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructblip.data import steps
    from instructblip.data.media import BadMedia

    real, calls = steps.decoded, []

    def failing(content: bytes) -> object:
        calls.append(content)
        if len(calls) % 5 == 0:
            raise BadMedia("picture", "cannot be decoded (test)")
        return real(content)

    monkeypatch.setattr(steps, "decoded", failing)
    run = train(tiny())
    totals = {kind: sum(dataset[kind] for dataset in kept(run)["datasets"].values()) for kind in COUNTS}
    listed = (run / "bad_media-rank0.txt").read_text().splitlines()
    assert totals["unreadable"] == len(listed) > 0 and totals["samples"] == 4 * 8 - len(listed)


def test_a_biased_draw_sets_the_alarm_off(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A stream that gives every second group to the first dataset; the honest one stays quiet."""
    config = ["steps=10", "batch_size=16", "group_size=1", "trainer.micro_batch_size=16"]
    assert not kept(train(tiny(*config, "name=honest")))["test"]["alarm"] and "ALARM" not in capsys.readouterr().out
    draw = RandomDraw.datasets

    def biased(self: RandomDraw, first: int, last: int) -> Any:
        return np.where(np.arange(first, last) % 2 == 0, 0, draw(self, first, last))

    monkeypatch.setattr(RandomDraw, "datasets", biased)
    test = kept(train(tiny(*config, "name=biased")))["test"]
    assert test["alarm"] and test["p"] < ALARM
    said = capsys.readouterr().out
    assert "ALARM: after 10 steps" in said and "most of all coco_caption" in said


def test_a_checkpoint_with_another_wording_is_not_carried_on(tiny: Tiny) -> None:
    data = training_set(tiny())
    facts = Ledger(data).facts(0)
    facts["datasets"]["vqav2"]["templates"]["vqa/99"] = dict.fromkeys(COUNTS, 1)
    with pytest.raises(ValueError, match="trained on template 'vqa/99' of vqav2, which the mixture has no more"):
        Ledger(data).carry(facts)


@pytest.mark.parametrize(
    ("seen", "expected", "statistic", "freedom", "p"),
    [  # p from tables of the distribution: 3.841459 and 18.307038 are its 5 % points, 13.815511 the 0.1 % point
        ([50 + (3.841459 * 25) ** 0.5, 50 - (3.841459 * 25) ** 0.5], [50, 50], 3.841459, 1, 0.05),
        ([100 + (18.307038 * 50) ** 0.5, 100 - (18.307038 * 50) ** 0.5, *[100] * 9], [100] * 11, 18.307038, 10, 0.05),
        ([90 + (13.815511 * 45) ** 0.5, 90 - (13.815511 * 45) ** 0.5, 90], [90] * 3, 13.815511, 2, 0.001),
        ([10, 2, 2, 3], [10, 2, 2, 2], 1 / 6, 1, 0.6830914),  # the three small ones are one cell of 6
    ],
)
def test_chi_square(seen: list[float], expected: list[float], statistic: float, freedom: int, p: float) -> None:
    test = chi_square(seen, expected)
    assert (test.statistic, test.freedom) == (pytest.approx(statistic), freedom)
    assert test.p == pytest.approx(p, rel=1e-4) and not test.alarm


def test_too_little_says_nothing() -> None:
    assert chi_square([4.0, 0.0], [3.0, 1.0]).p is None


def test_honest_draws_are_as_unlikely_as_they_say() -> None:
    """The paper's shares, after 20, 200 and 2000 groups: a tenth of 2000 seeds below p = 0.1, none near the alarm."""
    shares = torch.tensor([9.2, 45.5, 4.05, 8.1, 2.3, 0.8, 10.9, 8.1, 1.2, 1.6, 2.9, 1.9, 3.4], dtype=torch.float64)
    p = (shares / shares.sum()).numpy()
    rng = np.random.default_rng(0)
    for groups in (20, 200, 2000):
        values = [chi_square(rng.multinomial(groups, p).tolist(), (groups * p).tolist()).p for _ in range(2000)]
        below = np.array([value for value in values if value is not None])
        assert 0.07 < (below < 0.1).mean() < 0.13 and (below < 0.001).mean() < 0.006 and below.min() > ALARM
