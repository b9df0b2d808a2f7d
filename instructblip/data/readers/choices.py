"""Readers of closed questions: statements to judge, options to choose from, memes to classify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructblip.data.readers.base import Context, Drop, coco, image_id
from instructblip.data.sample import Answer, Candidates, MediaRef, Sample
from instructblip.files import read_json, read_jsonl


def vsr(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """VSR's JSON lines: no row id, so the line number is the id; 2017 file names.

    Validators stand in the rows as text that looks like Python lists, and are left there.
    """
    for number, row in enumerate(read_jsonl(files[0])):
        relpath = "/".join(row["image_link"].split("/")[-2:])
        yield context.sample(
            number,
            coco(context, image_id(row["image"]), relpath),
            slots={"statement": row["caption"]},
            candidates=Candidates(vocab="truefalse"),
            gold=int(row["label"]),
            group=str(image_id(row["image"])),
            meta={"relation": row["relation"]},
        )


def iconqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """IconQA's folder a problem, `iconqa/{split}/{type}/{pid}`, with question, picture and, of choose_img, options.

    Where `pid_splits.json` is there, problems it lists and the folders lack are named.
    """
    folders = {path.parent.name: path.parent for path in files if path.name == "data.json"}
    for pid, folder in folders.items():
        row = read_json(folder / "data.json")
        names = row["choices"] if row["ques_type"] == "choose_img" else []
        options = [_icon(context, folder, name, f"choice:{place}") for place, name in enumerate(names)]
        meta = {"grade": row["grade"], "label": row["label"]}
        chosen = _choice(context, pid, _icon(context, folder), row, {"question": row["question"]}, meta)
        yield replace(chosen, media=(*chosen.media, *options)) if isinstance(chosen, Sample) else chosen
    for path in files:
        if path.name == "pid_splits.json":
            split, kind = next(iter(folders.values())).parts[-3:-1]
            for pid in read_json(path)[f"{kind}_{split}"]:
                if pid not in folders:
                    yield Drop(context.uid(pid), "problem without its folder")


def scienceqa(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """ScienceQA's `problems.json` for the ids `pid_splits.json` lists; what has no picture is dropped.

    The hint is the context, and often empty. Lecture and solution say the answer and are not read.
    """
    problems, listed = read_json(files[0]), read_json(files[1])
    for pid in (pid for split in context.select for pid in listed[split]):
        if pid not in problems:
            yield Drop(context.uid(pid), "listed without a problem")
            continue
        row = problems[pid]
        if not row["image"]:
            yield Drop(context.uid(pid), "no picture")
            continue
        media = MediaRef(context.pool, pid, relpath=f"{row['split']}/{pid}/{row['image']}")
        slots = {"question": row["question"], "context": row["hint"]}
        meta = {name: row[name] for name in ("subject", "topic", "category", "grade")}
        yield _choice(context, pid, media, row, slots, meta)


def hateful_memes(files: Sequence[Path], context: Context) -> Iterator[Sample | Drop]:
    """Hateful Memes' JSON lines; `img` names the picture, as the number `id` has lost its leading zeros."""
    for row in read_jsonl(files[0]):
        name, label = Path(row["img"]).stem, row.get("label")
        yield context.sample(
            name,
            MediaRef(context.pool, name, relpath=row["img"]),
            slots={"statement": row["text"]},
            candidates=Candidates(vocab="yesno"),
            gold=None if label is None else int(label),
            group=name,
        )


def _choice(
    context: Context, pid: str, media: MediaRef, row: dict[str, Any], slots: dict[str, str], meta: dict[str, Any]
) -> Sample | Drop:
    """One of the row's `choices`, in their order; the `answer` indexes them and is absent where unlabelled."""
    items, gold = tuple(map(str, row["choices"])), row.get("answer")
    if gold is not None and not 0 <= gold < len(items):
        return Drop(context.uid(pid), "answer is none of the choices")
    said = () if gold is None else (Answer(items[gold]),)
    return context.sample(
        pid, media, slots=slots, answers=said, candidates=Candidates(items), gold=gold, group=pid, meta=meta
    )


def _icon(context: Context, folder: Path, name: str = "image.png", role: str = "main") -> MediaRef:
    """A picture of a problem, known by the problem, and an option by its file name as well."""
    key = folder.name if role == "main" else f"{folder.name}_{Path(name).stem}"
    return MediaRef(context.pool, key, relpath="/".join([*folder.parts[-4:], name]), role=role)
