"""What a step contains never depends on ranks, workers or micro-batches; and how it reads bad pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from instructblip.config.training import TrainConfig
from instructblip.data.mixture import deal
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.data.steps import Step, drawn_answer, stream_hash
from instructblip.training.datamodule import StepData, collator, training_set

Tiny = Callable[..., TrainConfig]


def data(config: TrainConfig) -> StepData:
    return StepData(config, training_set(config), collator(config, encoder_decoder=False), first=0)


def contents(steps: list[Step]) -> list[tuple[str, bytes, tuple[int, ...]]]:
    """(uid, pixels, ids) of every counting row."""
    rows = []
    for step in steps:
        for batch in step.batches:
            for row, uid in enumerate(batch.uids):
                if batch.loss_weight[row].any():
                    ids = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
                    rows.append((uid, batch.pixel_values[batch.image_index[row]].numpy().tobytes(), tuple(ids)))
    return rows


@pytest.mark.parametrize("ranks", [1, 2, 3, 24])
@pytest.mark.parametrize("micro", [1, 2, 5])
def test_the_same_samples_at_every_topology(tiny: Tiny, ranks: int, micro: int) -> None:
    config = tiny("transforms.crop_scale=[0.5,1.0]", "transforms.flip=0.5")
    alone = data(config).steps(0, 3)
    config.trainer.micro_batch_size = micro
    shared = [data(config).steps(0, 3, rank, ranks) for rank in range(ranks)]
    for number in range(3):
        parts = [ranked.read(number) for ranked in shared]
        assert len({len(part.batches) for part in parts}) == 1 and all(
            batch.uids for part in parts for batch in part.batches
        )
        assert sorted(contents(parts)) == sorted(contents([alone.read(number)]))


def simulated_hash(config: TrainConfig, world: int, micro: int) -> str:
    """The stream hash put together from what each simulated rank takes."""
    reader = data(config).reader
    digest = hashlib.sha256()
    for number in range(4):
        picks = reader.stream.step(number)
        taken = {
            place: picks[place] for rank in deal(reader.costs(picks), world, micro) for batch in rank for place in batch
        }
        for place in sorted(taken):
            example = reader.example(taken[place])
            line = f"{example.recipe}\t{example.uid}\t{example.template}\t{taken[place].augmentation}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def test_the_stream_hash_is_one_for_all_topologies(tiny: Tiny) -> None:
    config = tiny()
    expected = stream_hash(data(config).reader, 0, 4)
    assert {simulated_hash(config, world, micro) for world in (1, 2, 3, 24) for micro in (1, 2, 5)} == {expected}
    assert stream_hash(data(tiny("seed=43")).reader, 0, 4) != expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_keep_the_streams_order(tiny: Tiny, workers: int) -> None:
    steps = data(tiny()).steps(2, 9)
    read = list(DataLoader(steps, batch_size=None, num_workers=workers))
    assert [step.number for step in read] == list(range(2, 9))
    assert contents(read) == contents([steps.read(number) for number in range(2, 9)])


def test_a_bad_picture_is_left_out_and_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructblip.data import steps as module

    steps = data(tiny("trainer.micro_batch_size=1")).steps(0, 1)
    whole = steps.read(0)
    real, calls = module.decoded, []

    def breaking(content: bytes) -> Any:
        calls.append(content)
        return real(content[:30] if len(calls) == 2 else content)

    monkeypatch.setattr(module, "decoded", breaking)
    step = steps.read(0)
    assert len(step.bad) == 1 and whole.batches[1].uids[0] in step.bad[0] and "cannot be decoded" in step.bad[0]
    assert len(step.batches) == len(whole.batches), "an emptied micro-batch keeps its place"
    filler = step.batches[1]
    assert filler.uids == ("filler",) and not filler.loss_weight.any() and (filler.labels != -100).any()


def sample(*answers: Answer) -> Sample:
    return Sample("d/s/1", "d", "s", Form.vqa, (MediaRef("coco", "1"),), answers=answers)


def test_a_clip_is_read_frame_by_frame_with_one_crop(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames of the same picture stay the same; picture options are not shown."""
    made = data(tiny("mixture.recipes=[vqav2]", "transforms.crop_scale=[0.3,0.6]"))
    pick, table = made.data.stream.step(0)[0], made.data.tables[0]
    other = table.sample((pick.row + 20) % len(table)).media[0]
    still = made.reader.read(pick)[1]
    sample = table.sample(pick.row)
    (own,) = sample.media
    choice = MediaRef("coco", other.key, role="choice:0")
    clip = replace(sample, media=(own, other, own, choice))
    monkeypatch.setattr(type(table), "sample", lambda self, row: clip)
    frames = made.reader.read(pick)[1]
    assert frames.shape == (3, *still.shape) and frames.dtype is torch.uint8
    assert torch.equal(frames[0], still) and torch.equal(frames[2], still) and not torch.equal(frames[1], still)
    batch = made.steps(0, 1).read(0).batches[0]
    assert batch.pixel_values.shape[1:] == frames.shape


def test_a_sample_shows_something() -> None:
    with pytest.raises(ValueError, match="d/s/1: a Sample needs at least one picture"):
        Sample("d/s/1", "d", "s", Form.vqa, (MediaRef("coco", "1", role="choice:0"),))


def test_answers_are_drawn_by_their_votes() -> None:
    given = sample(Answer("a", 7), Answer(" ", 5), Answer("b", 3))
    drawn = [drawn_answer(given, u / 1000).text for u in range(1000)]
    assert drawn.count("a") == 700 and drawn.count("b") == 300
    with pytest.raises(ValueError, match="d/s/1 has no answer"):
        drawn_answer(sample(Answer("", 3)), 0.5)


def test_the_target_belongs_to_the_question(tiny: Tiny) -> None:
    """LAVIS' instruct collation gave samples the answers of their neighbours; here both come from one row."""
    config = tiny("mixture.recipes=[vqav2]", "trainer.micro_batch_size=8")
    made = data(config)
    tokenizer = made.collator.llm_tokenizer
    table = made.data.tables[0]
    truths = {table.sample(row).uid: table.sample(row) for row in range(len(table))}
    for number in range(5):
        (batch,) = made.steps(0, 5).read(number).batches
        for row, uid in enumerate(batch.uids):
            target = tokenizer.decode(batch.labels[row][batch.labels[row] != -100][:-1])
            prompt = tokenizer.decode(batch.input_ids[row][batch.labels[row] == -100], skip_special_tokens=True)
            assert target.strip() in {answer.text for answer in truths[uid].answers}
            assert truths[uid].slots["question"] in prompt
    assert torch.equal(batch.recipe, torch.zeros(8, dtype=torch.long))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_picture_with_several_samples_is_read_once(tiny: Tiny, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructblip.data import steps

    read, decoded = [], steps.decoded
    monkeypatch.setattr(steps, "decoded", lambda content: (read.append(content), decoded(content))[1])
    config = tiny("per_image=2", "mixture.recipes=[vqav2]")
    batches = [
        batch
        for rank in range(ranks)
        for step in data(config).steps(0, 4, rank, ranks)
        for batch in step.batches
        if batch.uids != ("filler",)
    ]
    assert sum(len(batch.uids) for batch in batches) == 32 and len(read) == 16
    for batch in batches:
        assert len(batch.pixel_values) == len(batch.uids) / 2
        assert batch.image_index.tolist() == [row // 2 for row in range(len(batch.uids))]
        pictures = [uid.split("/")[-1][:-3] for uid in batch.uids]  # of VQAv2: the question id less three digits
        assert pictures[::2] == pictures[1::2]


def test_a_micro_batch_holds_whole_pictures(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"trainer\.micro_batch_size=3 is not a multiple of per_image=2"):
        data(tiny("per_image=2", "trainer.micro_batch_size=3")).steps(0, 1)
