"""Files of questions that need a step beyond the picture: GQA's second hop, ScienceQA's rule in the context."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from instructblip.miniature.albums import Picture, few
from instructblip.miniature.programs import least_asked, with_article
from instructblip.miniature.reasoning import DOINGS, Hop, Ruled, ruled, two_hop
from instructblip.miniature.scenes import Role, distinct
from instructblip.miniature.world import World, write_json
from instructblip.miniature.writers.official import Record

GQA_SPLITS = ("train", "testdev")
OFFICIAL_RELATIONS = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
SCIENCEQA_ROLES = {"train": Role.tuning, "val": Role.selection, "test": Role.evaluation}
WITHOUT_PICTURE = 0.3  # of ScienceQA's problems, beside those with one
WITHOUT_HINT = 0.1  # of them; the rule stands in the question
LECTURE = "A rule may say what all things of one kind do. Look for the kind that the thing is of."


def write_gqa(tree: Path, world: World) -> None:
    for split in GQA_SPLITS:
        world.draw(tree, f"gqa_{split}")
        questions = gqa(world.pictures(f"gqa_{split}"), world.sizes[f"gqa_{split}"], world.rng(f"gqa/{split}"))
        write_json(tree / f"gqa/questions1.2/{split}_balanced_questions.json", questions)


def gqa(album: Sequence[Picture], number: int, rng: random.Random) -> dict[str, Record]:
    """`{split}_balanced_questions.json`: questions about the pictures in turn, by id."""
    asked: Counter[object] = Counter()
    ids = rng.sample(range(200_000_000, 299_999_999), number)
    questions = {}
    for i, id in enumerate(ids):
        picture = album[i % len(album)]
        hop = least_asked(two_hop(picture.scene), asked, rng)
        questions[str(id)] = _gqa_question(str(id), picture.key, hop, rng)
    return questions


def _gqa_question(id: str, image: str, hop: Hop, rng: random.Random) -> Record:
    """The functional program is the official one of such a question; numbers name objects of a scene graph."""
    other, found = (str(node) for node in rng.sample(range(1_000_000, 5_000_000), 2))
    steps = [
        ("select", [], f"{hop.other.shape} ({other})"),
        ("filter color", [0], hop.other.colour),
        ("relate", [1], f"_,{OFFICIAL_RELATIONS[hop.relation]},s ({found})"),
        ("query", [2], hop.attribute),
    ]
    spelled = [f"{name}: {said}" + "".join(f" [{k}]" for k in needs) for name, needs, said in steps]
    return {
        "semantic": [{"operation": name, "dependencies": needs, "argument": said} for name, needs, said in steps],
        "entailed": [],
        "equivalent": [id],
        "question": hop.text,
        "imageId": image,
        "isBalanced": True,
        "groups": {"global": hop.attribute, "local": f"10q-{hop.other.shape}_{hop.relation.replace(' ', '_')}"},
        "answer": hop.answer,
        "semanticStr": "->".join(spelled),
        "annotations": {"answer": {}, "question": {str(len(hop.text.split()) - 1): other}, "fullAnswer": {"1": found}},
        "types": {"detailed": f"{hop.attribute}RelS", "semantic": "rel", "structural": "query"},
        "fullAnswer": f"The thing is {with_article(hop.answer) if hop.attribute == 'shape' else hop.answer}.",
    }


def write_scienceqa(tree: Path, world: World) -> None:
    problems: dict[str, Record] = {}
    listed: dict[str, list[str]] = {}
    for place, (split, role) in enumerate(SCIENCEQA_ROLES.items()):
        world.draw(tree, f"scienceqa_{split}")
        album, rng = world.pictures(f"scienceqa_{split}"), world.rng(f"scienceqa/{split}")
        free = range(100_000 * (place + 1), 100_000 * (place + 1) + 20_000)
        pids = rng.sample(free, round(WITHOUT_PICTURE * len(album)))
        spoken = [
            Picture(pid, "", scene)
            for pid, scene in zip(pids, distinct(len(pids), world.role(role), rng, few), strict=True)
        ]
        written = scienceqa(split, album, rng) | scienceqa(split, spoken, rng)
        listed[split] = rng.sample(list(written), len(written))
        problems |= {pid: written[pid] for pid in listed[split]}
    listed["trainval"] = listed["train"] + listed["val"]
    listed |= {f"mini{split}": listed[split][: max(1, len(listed[split]) // 10)] for split in SCIENCEQA_ROLES}
    write_json(tree / "scienceqa/problems.json", problems)
    write_json(tree / "scienceqa/pid_splits.json", listed)


def scienceqa(split: str, album: Sequence[Picture], rng: random.Random) -> dict[str, Record]:
    """Problems of `problems.json`; a picture without a file is told in the context instead."""
    asked: Counter[object] = Counter()
    return {
        str(picture.id): _problem(split, picture, least_asked(ruled(picture.scene), asked, rng), rng)
        for picture in album
    }


def _problem(split: str, picture: Picture, question: Ruled, rng: random.Random) -> Record:
    pairs, gold = question.context(rng)
    rules, applied = told_rules(question.kind, pairs), [conclusion(*pair) for pair in pairs]
    context = [] if picture.file else [_told(question, picture)]
    if picture.file and rng.random() < WITHOUT_HINT:
        text = f"{rules} {question.text}"
    else:
        text, context = question.text, [*context, rules]
    order = rng.sample(range(len(pairs)), len(pairs))
    return {
        "question": text,
        "choices": [applied[k] for k in order],
        "answer": order.index(gold),
        "hint": " ".join(context),
        "image": "image.png" if picture.file else None,
        "task": "closed choice",
        "grade": f"grade{rng.randint(2, 8)}",
        "subject": "natural science",
        "topic": "rules",
        "category": "Things and what they do",
        "skill": f"Apply a rule about {question.kind}",
        "lecture": LECTURE,
        "solution": f"The {question.subject} is of the kind {question.value}. So {applied[gold]}.",
        "split": split,
    }


def _told(question: Ruled, picture: Picture) -> str:
    """What the picture would show of the thing that is asked about."""
    shown = picture.scene.objects
    item = next(item for item in shown if question.subject in (item.shape, f"{item.colour} thing", item.name))
    return f"There is {with_article(f'{item.size} {item.name}')}."


def told_rules(kind: str, pairs: Sequence[tuple[str, str]]) -> str:
    """`Here what is red flies and what is blue sings.`, of pairs of a value of the kind and what its things do."""
    *rules, last = [f"{'a' if kind == 'shape' else 'what is'} {conclusion(*pair)}" for pair in pairs]
    return f"Here {', '.join(rules)} and {last}."


def conclusion(value: str, does: str) -> str:
    """Says which rule holds and what follows of it, in the rule's own words."""
    return f"{value} {DOINGS[does]}"
