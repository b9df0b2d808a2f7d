"""Dialogue files: LLaVA-Instruct's conversations about tuned pictures, Visual Dialog's rounds with their options."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from instructblip.miniature.albums import Picture
from instructblip.miniature.coreference import Round, options, rounds
from instructblip.miniature.dialogues import SPEECH, Turn
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import Record

LLAVA_FILES = {  # the file, and the program that it speaks by
    "conversation_58k": "dialogue",
    "detail_23k": "detail",
    "complex_reasoning_77k": "why",
}
MARKER = "<image>"
ROUNDS = 10
CAPTIONS = ("a drawing of some shapes", "a picture of colored shapes", "shapes on a plain background")
RELEVANT = 0.4  # of an option that differs from the answer in one word


def write_llava(tree: Path, world: World) -> None:
    """Records about pictures of COCO's training set, of which one may come several times."""
    album = world.pictures("coco_train")
    for name, program in LLAVA_FILES.items():
        rng = world.rng(f"llava/{name}")
        chosen = [rng.choice(album) for _ in range(world.sizes[f"llava_{program}"])]
        write_json(tree / f"llava/{name}.json", llava(program, chosen, rng))


def llava(program: str, chosen: Sequence[Picture], rng: random.Random) -> list[Record]:
    """`conversation_58k.json` and its siblings; COCO's pictures under their names of 2017."""
    asked: Counter[object] = Counter()
    return [
        {
            "id": f"{picture.id:012d}",
            "image": f"{picture.id:012d}.jpg",
            "conversations": _conversation(SPEECH[program](picture.scene, rng, asked), rng),
        }
        for picture in chosen
    ]


def _conversation(turns: Sequence[Turn], rng: random.Random) -> list[dict[str, str]]:
    """The picture is marked on a line of its own, before or after the first words."""
    said = [
        ("human" if human else "gpt", text)
        for turn in turns
        for human, text in ((True, turn.human), (False, turn.reply))
    ]
    first = said[0][1]
    said[0] = ("human", f"{MARKER}\n{first}" if rng.random() < 0.5 else f"{first}\n{MARKER}")
    return [{"from": speaker, "value": text} for speaker, text in said]


def write_visdial(tree: Path, world: World) -> None:
    for split in ("val", "test"):
        album = f"visdial_{split}"
        world.draw(tree, album)
        rng = world.rng(f"visdial/{split}")
        dialogues = [(picture, rounds(picture.scene, ROUNDS, rng)) for picture in world.pictures(album)]
        written, dense = visdial(split, dialogues, rng)
        write_json(tree / f"visdial/visdial_1.0_{split}.json", written)
        if split == "val":
            write_json(tree / f"visdial/visdial_1.0_{split}_dense_annotations.json", dense)


def visdial(
    split: str, dialogues: Sequence[tuple[Picture, list[Round]]], rng: random.Random
) -> tuple[Record, list[Record]]:
    """`visdial_1.0_{split}.json`, where all that is said is a place in one of two tables, and the dense annotations.

    In the test set a dialogue may end early, and its last round alone has options and no answer.
    """
    if split == "test":
        dialogues = [(picture, said[: rng.randint(1, ROUNDS)]) for picture, said in dialogues]
    chosen = [[options(picture.scene, said, rng) for said in dialogue] for picture, dialogue in dialogues]
    questions = _Table([said.question for _, dialogue in dialogues for said in dialogue], rng)
    answers = _Table([text for dialogue in chosen for texts, _ in dialogue for text in texts], rng)
    dialogs, dense = [], []
    for (picture, dialogue), offered in zip(dialogues, chosen, strict=True):
        turns = [
            {
                "answer": answers[said.answer],
                "gt_index": place,
                "question": questions[said.question],
                "answer_options": [answers[text] for text in texts],
            }
            for said, (texts, place) in zip(dialogue, offered, strict=True)
        ]
        if split == "test":
            turns = [{key: turn[key] for key in ("answer", "question")} for turn in turns[:-1]] + [
                {key: turns[-1][key] for key in ("question", "answer_options")}
            ]
        dialogs.append({"image_id": picture.id, "dialog": turns, "caption": rng.choice(CAPTIONS)})
        graded = rng.randrange(len(turns))
        relevance = [_relevance(text, dialogue[graded].answer) for text in offered[graded][0]]
        dense.append({"image_id": picture.id, "round_id": graded + 1, "gt_relevance": relevance})
    data = {"questions": questions.texts, "answers": answers.texts, "dialogs": dialogs}
    return {"version": "1.0", "split": f"{split}2018", "data": data}, dense


def _relevance(option: str, answer: str) -> float:
    one, other = option.split(), answer.split()
    different = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
    return 1.0 if different == 0 else RELEVANT if different == 1 else 0.0


class _Table:
    """Distinct strings in random order; indexed by string it gives the place."""

    def __init__(self, texts: Sequence[str], rng: random.Random) -> None:
        self.texts = rng.sample(distinct := sorted(set(texts)), len(distinct))
        self._places = {text: place for place, text in enumerate(self.texts)}

    def __getitem__(self, text: str) -> int:
        return self._places[text]
