"""What the backbone is pretrained on: scenes in words with questions and answers, and pictures with the same words.

The language model may know every program from text, held-out ones too, as Vicuna and FlanT5 know how to count. Of one
scene as much is asked as there is room for, since a scene that is asked about once teaches little of where to look in
it; every question by itself, since the others tell much of what is asked, to be copied from there. Scenes are of the
language role: none is ever shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from instructblip.miniature import books, turns
from instructblip.miniature.albums import ALBUMS, SNAPSHOTS, Picture, Sizes, few, many, printed_on
from instructblip.miniature.clips import Clip, moves
from instructblip.miniature.memes import NAMES, Meme, draw_things
from instructblip.miniature.programs import LETTERED, LISTED, STRIPED
from instructblip.miniature.scenes import Domain, Draw, Role, Scene, sample
from instructblip.miniature.telling import STRIPES_SEEN, UNASKED, tell, tell_clip, tell_picture
from instructblip.miniature.turns import BARE, WORDED, Manner, Turn, some
from instructblip.miniature.world import World
from instructblip.miniature.writers.videos import STILL

Row = dict[str, Any]  # of the reader `own`
Told = tuple[str, list[Turn]]  # a scene in words, and what is asked of it
Maker = Callable[[Manner, Role, random.Random], Told]
BLANK = "blank.jpg"  # the stream wants a picture with every row
ROOM = 184  # tokens of a row: those of a step are padded to the longest
RULES = 8  # asked of one scene, as far as there is room
LONG = 0.25  # of the plain scenes are described as well
ALIGNMENT = Sizes(  # of the world whose pictures the vision encoder and the Q-Former are aligned on
    scale=0.02,
    given={
        "coco_train": 6000, "web": 6000, "textvqa_train": 2500, "books_train": 2500, "flickr30k_test": 1000,
        "vizwiz_val": 2000, "vsr_test": 400, "visdial_val": 1500,
    },
)  # fmt: skip


def spared(draw: Draw, role: Role, rng: random.Random) -> Scene:
    """A scene that is kept for this role."""
    while (scene := draw(rng)).role is not role:
        pass
    return scene


def lookups(manner: Manner, role: Role, rng: random.Random) -> Told:
    """All that one object's words answer."""
    scene = spared(sample, role, rng)
    said = turns.looked_up(scene, manner, rng)
    return tell(scene.objects), rng.sample(said, len(said))


def plain(manner: Manner, role: Role, rng: random.Random) -> Told:
    """Held-in and held-out programs alike; captions and speech, which are long, more seldom."""
    scene = spared(partial(sample, domains=(Domain.inside, Domain.inside, Domain.near, Domain.outside)), role, rng)
    said = turns.plain(scene, manner, rng)
    if not manner.bare and rng.random() < LONG:
        said += turns.captioned(scene, "list-objects", rng, LISTED) + some(turns.spoken(scene, rng), 1, rng)
    return tell(scene.objects), rng.sample(said, len(said))


def ruled(manner: Manner, role: Role, rng: random.Random) -> Told:
    """Rules alone: each is long, and leaves little room beside others. Bare, one context stands for all."""
    scene = spared(sample, role, rng)
    if not manner.bare:
        return tell(scene.objects), turns.by_rule(scene, manner, rng, number=RULES)
    context, said = turns.of_one_kind(scene, rng)
    looked_up = some(turns.looked_up(scene, manner, rng), RULES, rng)
    return f"{tell(scene.objects)} {context}", rng.sample(said, len(said)) + looked_up


def described(manner: Manner, role: Role, rng: random.Random) -> Told:
    """A caption follows the scene unasked, so that queries which tell a scene are described by themselves."""
    scene = spared(sample, role, rng)
    return tell(scene.objects), turns.described(scene, rng)


def lettered(manner: Manner, role: Role, rng: random.Random) -> Told:
    scene = spared(printed_on, role, rng)
    said = turns.lettered(scene, manner, rng)
    said += [] if manner.bare else turns.captioned(scene, "list-objects-and-words", rng, LETTERED)
    others = turns.plain(scene, manner, rng)  # as far as there is room
    return tell(scene.objects), rng.sample(said, len(said)) + rng.sample(others, len(others))


def printed(manner: Manner, role: Role, rng: random.Random) -> Told:
    """Words alone, of several things."""
    scene = spared(printed_on, role, rng)
    said = turns.lettered(scene, manner, rng)
    return tell(scene.objects), rng.sample(said, len(said))


def conversed(manner: Manner, role: Role, rng: random.Random) -> Told:
    """Rounds of a dialogue, each with those before it."""
    scene = spared(rng.choice((sample, many)), role, rng)
    return tell(scene.objects), turns.conversed(scene, manner, rng)


def judged_back(manner: Manner, role: Role, rng: random.Random) -> Told:
    """Rounds that ask whether the thing spoken of has a colour: of few things, so that the histories are short."""
    scene = spared(partial(sample, counts=(2, 3)), role, rng)
    return tell(scene.objects), turns.conversed(scene, manner, rng, back=True)


def covers(manner: Manner, role: Role, rng: random.Random) -> Told:
    scene = spared(books.cover, role, rng)
    return tell(scene.objects), turns.covers(scene, manner, rng)


def striped(manner: Manner, role: Role, rng: random.Random) -> Told:
    scene = spared(sample, role, rng)
    return f"{tell(scene.objects)} {STRIPES_SEEN}", turns.captioned(scene, "list-objects-in-other-words", rng, STRIPED)


def photographed(manner: Manner, role: Role, rng: random.Random) -> Told:
    picture = Picture(0, "", spared(few, role, rng), rng.choice(SNAPSHOTS))
    return tell_picture(picture), turns.photographed(picture.scene, picture.look, manner, rng)


def moving(manner: Manner, role: Role, rng: random.Random) -> Told:
    scene = spared(partial(sample, counts=(2, 3)), role, rng)
    possible = [] if rng.random() < STILL else [each for each in moves(scene) if each.after.role is role]
    clip = rng.choice(possible or [Clip(scene)])
    said = turns.moving(clip, manner)
    return tell_clip(clip), rng.sample(said, len(said))


def memes(manner: Manner, role: Role, rng: random.Random) -> Told:
    """Several words below one scene, each told just before it is asked about."""
    scene = spared(draw_things, role, rng)
    return tell(scene.objects), [turns.judged(Meme(scene, word), manner) for word in rng.sample(NAMES, len(NAMES))]


class Course(NamedTuple):
    """What a language model learns at a time: kinds of rows, how often each, the share of bare ones; and how long.

    Look-ups form at a high rate, all at once, and what is built of them at a falling one. Seeds need more or fewer
    steps until then: up to twice as many, in quarters, until the training loss is `enough`.
    """

    kinds: Mapping[Maker, float]
    bare: float
    rows: int
    steps: int
    batch: int  # rows of a step
    min_lr: float  # what the rate falls to
    enough: float = float("inf")
    pace: Mapping[str, float] = {"t5": 0.5}  # of the steps: what an encoder reads in both directions is found sooner

    def steps_of(self, family: str) -> float:
        """0 where the family need not be taught this."""
        return self.steps * self.pace.get(family, 1.0)


EVERYTHING: dict[Maker, float] = {  # those with few or hard questions more often
    plain: 8.0, conversed: 8.0, moving: 6.0, ruled: 6.0, lettered: 5.0, covers: 3.0, described: 2.0, memes: 1.2,
    photographed: 1.0, striped: 0.3,
}  # fmt: skip
CHAINS: dict[Maker, float] = {conversed: 1.5, ruled: 1.2, printed: 0.8, lookups: 0.3}  # where one look-up needs another
REFERENCES: dict[Maker, float] = {conversed: 30.0, judged_back: 30.0}
COURSES = {  # by recipe, in this order: with everything at once, where to look is learnt many times more slowly
    "scene_lookups": Course({lookups: 1.0}, bare=1.0, rows=25_000, steps=700, batch=32, min_lr=2e-3),
    "scene_chains": Course(CHAINS, bare=1.0, rows=66_000, steps=2000, batch=32, min_lr=5e-4, enough=0.04),
    "scene_questions": Course(EVERYTHING, bare=1.0, rows=40_000, steps=2500, batch=16, min_lr=5e-4),
    "scene_text": Course(EVERYTHING, bare=0.5, rows=56_000, steps=3500, batch=16, min_lr=1e-5),
    "scene_dialogues": Course(
        EVERYTHING | {conversed: 30.0}, bare=0.5, rows=32_000, steps=2000, batch=16, min_lr=1e-5, pace={}
    ),
    "scene_references": Course(
        EVERYTHING | REFERENCES, bare=0.5, rows=16_000, steps=1000, batch=16, min_lr=1e-5, pace={"llama": 0.0}
    ),
}


def texts(recipe: str, number: int, seed: int) -> Iterator[Row]:
    """Rows of the reader `own`: a scene in words with a first question, and more of them that follow."""
    rng = random.Random(f"{seed}/{recipe}")
    course = COURSES[recipe]
    while number:
        (make,) = rng.choices(list(course.kinds), list(course.kinds.values()))
        shown, said = make(BARE if rng.random() < course.bare else WORDED, Role.language, rng)
        if said:
            yield _row(shown, said)
            number -= 1


def _row(shown: str, said: Sequence[Turn]) -> Row:
    """As many of the turns as there is room for."""
    room = ROOM - _length(shown)
    kept = [turn for turn in said if (room := room - _length(turn.asked) - _length(turn.said)) >= 0] or said[:1]
    first, *others = kept
    if not others:
        return {"image": BLANK, "instruction": first.behind(shown), "response": first.said}
    following = [(turn.asked, turn.said) for turn in others]
    return {
        "image": BLANK, "context": shown, "instruction": first.asked, "response": first.said, "following": following,
    }  # fmt: skip


def _length(text: str) -> int:
    """Tokens of the miniature's language models, and one for the end of what is said."""
    return len(_tokenizer().encode(text, add_special_tokens=False).ids) + 1


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(Path(__file__).with_name("llm_tokenizer.json")))


def pictures(world: World) -> Iterator[Row]:
    """Rows of `image`, below the raw tree, and `response`, its words; no pair of shape and colour that is withheld."""
    for name, album in ALBUMS.items():
        for picture in () if name in UNASKED else world.pictures(name):
            if picture.scene.domain is Domain.inside:
                yield {"image": f"{album.pool}/{picture.file}", "response": tell_picture(picture)}
