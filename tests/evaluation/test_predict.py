from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from instructblip import recipes
from instructblip.data.sample import Candidates, MediaRef
from instructblip.data.shards import MediaPool, append
from instructblip.evaluation.answering import choices, decoding, ranked, sample_seed
from instructblip.evaluation.features import Features
from instructblip.evaluation.predict import device
from instructblip.evaluation.predictions import read
from instructblip.evaluation.questions import Question, by_length
from instructblip.protocols import Decoding

from .conftest import ALONE, PICTURES, World, picture, question, statement


def questions(count: int, images: int) -> list[Question]:
    return [Question(n, f"{n:03d}", "?" * (n % 7), (MediaRef("coco", str(n % images)),)) for n in range(count)]


def test_generation_answers_each_question_about_its_own_picture(world: World) -> None:
    conditions, predictions = read(world.predict("vqav2"))
    assert len(predictions) == 7
    for each in predictions:
        number = int(each.uid.rsplit("/", 1)[1])
        assert each.prompt == f"Question: How bright is {number:02d}? Short answer:"
        assert each.output == f"{number % PICTURES * 40:03d}"
        assert each.scores is None
    assert conditions.decoding == world.model.settings | {"seed": 0}
    assert conditions.decoding["repetition_scope"] == "generated" and conditions.decoding["beam_length"] == "with_start"
    assert conditions.decoding["length_penalty"] == 0.0  # causal, LAVIS
    assert conditions.checkpoint == world.checkpoint


def test_each_question_has_a_seed_of_its_own_whatever_its_batch(world: World) -> None:
    world.predict("vqav2", batch_size=1)
    seeds = [sample_seed(0, f"vqav2/val/{number:02d}") for number in range(7)]
    assert len(set(seeds)) == 7 and sorted(world.model.seeds) == sorted(seeds)
    assert sample_seed(1, "vqav2/val/00") != seeds[0]


def test_the_length_penalty_is_that_of_the_family() -> None:
    settings = recipes.load("vqav2").protocol("paper").decoding
    assert decoding(settings, "causal")["length_penalty"] == 0.0
    assert decoding(settings, "encoder_decoder")["length_penalty"] == -1.0
    with pytest.raises(ValueError, match="causal"):
        decoding(Decoding(), "causal")


def test_ranking_scores_classes_by_their_words(world: World) -> None:
    conditions, predictions = read(world.predict("vsr"))
    no, yes = 2 * math.exp(-1.5), math.exp(-1.0) + math.exp(-2.0)
    assert len(predictions) == 11
    assert all(each.scores == pytest.approx([math.log(no), math.log(yes)]) for each in predictions)
    assert conditions.decoding == {} and predictions[0].output is None


def test_inline_candidates_get_a_score_each() -> None:
    sample = replace(statement(0), candidates=Candidates(items=("left", "right", "left")))
    assert choices(sample) == ["left", "right", "left"]
    assert ranked(questions(1, 1)[0], sample, [-3.0, -1.0, -3.0]).scores == [-3.0, -1.0, -3.0]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float, world: World) -> None:
    world.model.likes["true"] = bad
    with pytest.raises(ValueError, match=r"vsr/test/\d+: the model scores the candidates"):
        world.predict("vsr")
    assert not list(world.path("vsr").parent.iterdir())


def test_a_picture_is_encoded_once_a_batch(world: World) -> None:
    world.prepare("vsr", [statement(number, image=number // 3) for number in range(6)])
    world.predict("vsr", batch_size=6)
    assert world.model.batches == [(2, 6)] and len(world.model.encoded) == 2


def test_batches_are_sorted_by_length_and_lose_nobody() -> None:
    given = questions(40, images=9)
    batches = by_length(given, 6)
    flat = [question for batch in batches for question in batch]
    assert sorted(flat, key=lambda q: q.uid) == given
    assert all(len(a.prompt) >= len(b.prompt) for a, b in pairwise(flat))
    assert [len(batch) for batch in batches] == [6] * 6 + [4]


def test_batches_do_not_depend_on_the_order_of_the_table() -> None:
    given = questions(40, images=9)
    assert by_length(given[::-1], 6) == by_length(given, 6)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        by_length(questions(2, 1), 0)


@pytest.mark.parametrize("died_after", [0, 1, 3])
@pytest.mark.parametrize("tail", [b"", b'{"uid": "vsr/te', b'{"uid": "x", "prompt": "?", "output": "y"}'])
def test_killed_and_restarted_gives_the_same_bytes(died_after: int, tail: bytes, world: World) -> None:
    path = world.predict("vsr")
    whole, batches = path.read_bytes(), world.model.batches
    path.unlink()
    world.model.batches, world.model.dies_after = [], died_after
    with pytest.raises(KeyboardInterrupt):
        world.predict("vsr")
    with path.with_name("part-000.jsonl").open("ab") as part:
        part.write(tail)
    world.model.dies_after = 1_000
    world.predict("vsr")
    assert path.read_bytes() == whole and [file.name for file in path.parent.iterdir()] == [path.name]
    assert world.model.batches == batches  # what was finished was not asked again


@pytest.mark.parametrize("name", ["predictions.jsonl", "part-000.jsonl", "part-001.jsonl"])
def test_a_batch_that_was_cut_is_asked_again_as_a_whole(name: str, world: World) -> None:
    path = world.predict("vsr")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.unlink()
    path.with_name(name).write_bytes(b"".join(lines[:5]))  # a batch of three, two of the next
    world.model.batches = []
    world.predict("vsr")
    assert path.read_bytes() == whole and [file.name for file in path.parent.iterdir()] == [path.name]
    assert [rows for _, rows in world.model.batches] == [3, 3, 2]


def test_several_wordings_encode_each_picture_once_and_say_the_same_as_alone(world: World) -> None:
    world.predict("vqav2", prompts="all", batch_size=2)
    trials = world.trials("vqav2", prompts="all")
    assert len(trials) == len(world.ready) == 10  # both profiles are one of the family's ten wordings
    assert sorted(world.model.encoded) == [key * 40 for key in range(PICTURES)]
    paths = [trial.path(world.run, world.config()) for trial in trials]
    together = [path.read_bytes() for path in paths]
    for path, trial in zip(paths, trials, strict=True):
        path.unlink()
        world.predict("vqav2", prompts=trial.profile, batch_size=2, feature_cache_gib=0.0)
    assert [path.read_bytes() for path in paths] == together
    assert len(world.model.encoded) > 3 * PICTURES  # nothing was kept


def test_features_keep_no_more_than_they_may(world: World) -> None:
    features = Features(world.model, 8, keep=8)  # type: ignore[arg-type]  # two pictures of one float
    pools = {"coco": MediaPool(world.data / "media" / "coco")}
    for key in (0, 1, 0, 2, 0, 1):
        embeds, index = features.of([Question(0, "q", "?", (MediaRef("coco", str(key)),))], pools)
        assert (embeds.flatten().tolist(), index) == ([key * 40], [0]) and features.bytes <= 8
    assert world.model.encoded == [0, 40, 80, 40]  # the one used last stays


def test_another_checkpoint_does_not_go_on_with_the_file(world: World) -> None:
    world.predict("vsr")
    world.checkpoint = "decaf"
    with pytest.raises(ValueError, match="checkpoint 'c0ffee' is now 'decaf'"):
        world.predict("vsr")


def test_limit_takes_the_first_samples(world: World) -> None:
    conditions, predictions = read(world.predict("vsr", limit=4))
    assert sorted(each.uid for each in predictions) == [f"vsr/test/{number:02d}" for number in range(4)]
    assert conditions.limit == 4


def test_an_unlabelled_split_is_refused_before_the_model_runs(world: World) -> None:
    world.prepare("vsr", [statement(0), statement(1, gold=None)])
    with pytest.raises(ValueError, match=r"1 of 2 Samples have neither answers nor a gold.*first vsr/test/01"):
        world.predict("vsr")
    assert world.model.batches == [] and not world.path("vsr").exists()
    world.prepare("vsr", [statement(0, gold=None), statement(1, gold=None)])
    with pytest.raises(ValueError, match="vsr: split 'test' is unlabelled, and no server form"):
        world.predict("vsr")


def test_an_unknown_device_is_refused() -> None:
    assert device("auto", ALONE) in ("cpu", "cuda:0")
    with pytest.raises(ValueError, match="device=gpu"):
        device("gpu", ALONE)


def test_a_missing_picture_is_named(world: World) -> None:
    world.prepare("vsr", [statement(0), statement(1, image=77)])
    with pytest.raises(ValueError, match="vsr/test/01 cannot be shown its picture coco/77"):
        world.predict("vsr")


def test_a_broken_picture_is_named(world: World) -> None:
    append(world.data / "media" / "coco", [("88", picture(1))], shard_size=1)
    (tar,) = [path for path in (world.data / "media" / "coco").glob("*.tar") if b"88.png" in path.read_bytes()]
    tar.write_bytes(tar.read_bytes().replace(b"IDAT", b"IDAX"))
    world.prepare("vsr", [statement(0), statement(1, image=88)])
    with pytest.raises(ValueError, match="vsr/test/01 cannot be shown its picture coco/88"):
        world.predict("vsr")


def test_a_clip_is_shown_frame_by_frame_and_encoded_once(world: World) -> None:
    clip = tuple(MediaRef("coco", str(key)) for key in (1, 4))
    world.prepare("vqav2", [replace(question(number, "a"), media=clip) for number in range(3)])
    shown: list[torch.Size] = []
    generate = world.model.generate
    world.model.generate = lambda image_embeds, **rest: (  # type: ignore[method-assign,misc,assignment]
        shown.append(image_embeds.shape), generate(image_embeds=image_embeds, **rest)
    )[1]  # fmt: skip
    _, predictions = read(world.predict("vqav2"))
    assert (
        shown == [(1, 2, 1, 1)] and world.model.encoded == [40] and [each.output for each in predictions] == ["100"] * 3
    )
    world.prepare("vqav2", [replace(question(0, "a"), media=clip), question(1, "a")])
    world.path("vqav2").unlink()
    with pytest.raises(ValueError, match="media of 1 and 2 frames"):
        world.predict("vqav2")


def test_picture_options_are_not_shown(world: World) -> None:
    options = tuple(MediaRef("coco", str(key), role=f"choice:{key}") for key in range(2))
    given = question(3, "a")
    world.prepare("vqav2", [replace(given, media=(*options, *given.media))])
    assert read(world.predict("vqav2"))[1][0].output == "120"
