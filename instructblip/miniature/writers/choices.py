"""Closed questions: statements to judge, options to choose from, memes to classify."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from instructblip.miniature.albums import Picture
from instructblip.miniature.icons import draw_icon
from instructblip.miniature.memes import Meme, draw, draw_things, memes
from instructblip.miniature.programs import least_asked
from instructblip.miniature.reasoning import Statement, comparing, counting, statements
from instructblip.miniature.scenes import Role, Scene, distinct, sample
from instructblip.miniature.world import World, encode, write_json, write_lines
from instructblip.miniature.writers.official import Record

ICONQA_ROLES = {"train": Role.tuning, "val": Role.selection, "test": Role.evaluation}
ICONQA_PIDS = {"train": range(40_000), "val": range(40_000, 70_000), "test": range(70_000, 110_000)}
OTHER_TYPES = ("choose_img", "fill_in_blank")  # of problems: a few, beside those of choose_txt
ICONS = partial(sample, counts=(2, 3, 4, 5))
MEME_IDS = range(1000, 100_000)  # written with five digits
MEME_SPLITS = {  # those of a role share no scene
    Role.tuning: ("train",),
    Role.evaluation: ("dev_seen", "dev_unseen", "test_seen", "test_unseen"),
}


def write_vsr(tree: Path, world: World) -> None:
    """Both splits of the official repository, over the same pictures."""
    for split in ("train", "dev", "test"):
        album = f"vsr_{split}"
        world.draw(tree, album)
        rows = vsr(world.pictures(album), world.sizes[album], world.rng(f"vsr/{split}"))
        write_lines(tree / f"vsr/data/splits/zeroshot/{split}.jsonl", rows)
        rows = vsr(world.pictures(album), world.sizes[album], world.rng(f"vsr/random/{split}"))
        write_lines(tree / f"vsr/data/splits/random/{split}.jsonl", map(_of_random_split, rows))


def vsr(album: Sequence[Picture], number: int, rng: random.Random) -> list[Record]:
    """Lines of `data/splits/zeroshot/*.jsonl`: statements about the pictures in turn, half of them true."""
    asked: Counter[object] = Counter()
    rows = []
    for i in range(number):
        picture = album[i % len(album)]
        rows.append(_vsr_row(picture, least_asked(statements(picture.scene), asked, rng), rng))
    return rows


def _vsr_row(picture: Picture, statement: Statement, rng: random.Random) -> Record:
    """All validators agree with the label; their lists are strings, as in the official files."""
    validators = str(rng.sample(range(1, 70), rng.randint(2, 3)))
    return {
        "image": picture.file_name,
        "image_link": picture.url,
        "caption": statement.text,
        "label": int(statement.true),
        "relation": statement.relation,
        "subj": statement.subject,
        "obj": statement.other,
        "annotator_id": rng.randint(1, 69),
        "vote_true_validator_id": validators if statement.true else "[]",
        "vote_false_validator_id": "[]" if statement.true else validators,
    }


def _of_random_split(row: Record) -> Record:
    return {key: value for key, value in row.items() if key not in ("subj", "obj")} | {"reference_frame": None}


class Problem(NamedTuple):
    """One folder of IconQA: its question and the scenes of `image.png` and of the options that are pictures."""

    pid: str
    row: Record
    scenes: list[Scene]


def write_iconqa(tree: Path, world: World) -> None:
    problems: dict[str, Record] = {}
    listed: dict[str, list[str]] = {}
    for split in ICONQA_ROLES:
        for problem in iconqa(world, split):
            kind = problem.row["ques_type"]
            folder = tree / "iconqa/iconqa_data/iconqa" / split / kind / problem.pid
            rng = world.rng(f"look/iconqa/{problem.pid}")
            write_json(folder / "data.json", problem.row)
            for name, scene in zip(["image.png", *problem.row.get("choices", ())], problem.scenes, strict=False):
                (folder / name).write_bytes(encode(draw_icon(scene, rng), ".png"))
            problems[problem.pid] = problem.row | {"split": split}
            listed.setdefault(f"{kind}_{split}", []).append(problem.pid)
    write_json(tree / "iconqa/iconqa_data/problems.json", problems)
    write_json(tree / "iconqa/iconqa_data/pid_splits.json", listed)


def iconqa(world: World, split: str) -> list[Problem]:
    """The problems of a split: those with options of text, which are evaluated, and a few of the two other types."""
    rng = world.rng(f"iconqa/{split}")
    numbers = {"choose_txt": world.sizes[f"iconqa_{split}"]} | dict.fromkeys(OTHER_TYPES, world.sizes["iconqa_others"])
    total = sum(numbers.values())
    scenes = iter(distinct(total, world.role(ICONQA_ROLES[split]), rng, ICONS))
    pids = iter(rng.sample(ICONQA_PIDS[split], total))
    return [
        Problem(str(next(pids)), row, shown)
        for kind, number in numbers.items()
        for row, shown in _MAKERS[kind](list(islice(scenes, number)), rng)
    ]


def _choose_txt(scenes: Sequence[Scene], rng: random.Random) -> Iterator[tuple[Record, list[Scene]]]:
    """Counting and comparing in turn."""
    asked: Counter[object] = Counter()
    for program, scene in zip(cycle((counting, comparing)), scenes, strict=False):
        question = least_asked(program(scene), asked, rng)
        options, answer = question.options(rng)
        yield _icon_row("choose_txt", question.text, answer, rng, options), [scene]


def _choose_img(scenes: Sequence[Scene], rng: random.Random) -> Iterator[tuple[Record, list[Scene]]]:
    """One of the options has as many things as `image.png`."""
    for scene in scenes:
        by_count = {len(other.objects): other for other in rng.sample(scenes, len(scenes))}
        options = [by_count[count] for count in rng.sample(sorted(by_count), len(by_count))]
        answer = [len(option.objects) for option in options].index(len(scene.objects))
        names = [f"choice_{k}.png" for k in range(len(options))]
        row = _icon_row("choose_img", "Which picture has as many shapes as this one?", answer, rng, names)
        yield row, [scene, *options]


def _fill_in_blank(scenes: Sequence[Scene], rng: random.Random) -> Iterator[tuple[Record, list[Scene]]]:
    asked: Counter[object] = Counter()
    for scene in scenes:
        question = least_asked(counting(scene), asked, rng)
        yield _icon_row("fill_in_blank", question.text, question.answer, rng), [scene]


_MAKERS = {"choose_txt": _choose_txt, "choose_img": _choose_img, "fill_in_blank": _fill_in_blank}


def _icon_row(kind: str, text: str, answer: int | str, rng: random.Random, choices: Sequence[str] = ()) -> Record:
    offered = {"choices": list(choices)} if choices else {}
    grade, label = rng.choice(("prek", "kindergarten", "grade1", "grade2")), f"C{rng.randint(1, 9)}"
    return {"question": text} | offered | {"answer": answer, "ques_type": kind, "grade": grade, "label": label}


class NamedMeme(NamedTuple):
    id: int
    meme: Meme

    @property
    def img(self) -> str:
        return f"img/{self.id:05d}.png"


def write_hateful_memes(tree: Path, world: World) -> None:
    """The test files of a competition have no labels."""
    for split, named in hateful_memes(world).items():
        rows = []
        for item in named:
            label = {} if split.startswith("test") else {"label": item.meme.label}
            rows.append({"id": item.id, "img": item.img} | label | {"text": item.meme.word})
            file = tree / "hateful_memes" / item.img
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(draw(item.meme, world.rng(f"look/hateful_memes/{item.id}")), ".png"))
        write_lines(tree / f"hateful_memes/{split}.jsonl", rows)


def hateful_memes(world: World) -> dict[str, list[NamedMeme]]:
    """Every split, with ids that are drawn apart from the labels and that no two splits share."""
    rng = world.rng("hateful_memes")
    sizes = {split: world.sizes[f"hateful_memes_{split}"] for splits in MEME_SPLITS.values() for split in splits}
    ids = iter(rng.sample(MEME_IDS, sum(sizes.values())))
    written = {}
    for role, splits in MEME_SPLITS.items():
        scenes = iter(distinct(sum(sizes[split] for split in splits), world.role(role), rng, draw_things))
        for split in splits:
            made = memes(islice(scenes, (sizes[split] + 1) // 2), rng)[: sizes[split]]
            written[split] = [NamedMeme(next(ids), meme) for meme in made]
    return written
