"""What the backbone is pretrained on: scenes in words with questions and answers, and pictures with the same words.

The language model may know every program from text, held-out ones too, as Vicuna and FlanT5 know how to count. All are
asked in the words of the recipes, several of one scene, since a scene that is asked about once teaches little of where
to look in it. Scenes are of the language role: none is ever shown.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from instructblip import recipes
from instructblip.data.sample import Candidates, Form, MediaRef, Sample
from instructblip.data.templates import fill, templates
from instructblip.evaluation.answers import verbaliser
from instructblip.miniature import books, snapshots
from instructblip.miniature.albums import ALBUMS, SNAPSHOTS, Picture, Sizes, few, many
from instructblip.miniature.clips import PROGRAMS as MOVING
from instructblip.miniature.clips import Clip, moves
from instructblip.miniature.coreference import rounds
from instructblip.miniature.dialogues import SPEECH
from instructblip.miniature.knowledge import known_fact
from instructblip.miniature.lettering import read, word_on
from instructblip.miniature.memes import draw_things
from instructblip.miniature.memes import memes as labelled
from instructblip.miniature.programs import LETTERED, LISTED, PROGRAMS, STRIPED, Grammar, Question, captions
from instructblip.miniature.reasoning import DOINGS, comparing, counting, ruled, statements, two_hop
from instructblip.miniature.scenes import Domain, Draw, Role, Scene, sample
from instructblip.miniature.telling import STRIPES_SEEN, UNASKED, tell, tell_clip, tell_meme, tell_picture
from instructblip.miniature.world import World
from instructblip.miniature.writers.dialogues import ROUNDS
from instructblip.miniature.writers.reasoning import listed, rule

Row = dict[str, Any]  # of the reader `own`
BLANK = "blank.jpg"  # the stream wants a picture with every row
TURNS = 8  # about a scene, at most
ROOM = 560  # characters of a row: those of a step are padded to the longest
LONG = 0.15  # of the plain scenes are described as well
PROFILE = "paper"
ALIGNMENT = Sizes(  # of the world whose pictures the vision encoder and the Q-Former are aligned on
    scale=0.02,
    given={
        "coco_train": 6000, "web": 6000, "textvqa_train": 2500, "books_train": 2500, "flickr30k_test": 1000,
        "vizwiz_val": 2000, "vsr_test": 400, "visdial_val": 1500,
    },
)  # fmt: skip


class Turn(NamedTuple):
    asked: str
    said: str


Say = Callable[[Scene, random.Random], list[Turn]]


@cache
def prompt(recipe: str) -> str:
    """The paper's, of a held-out set."""
    return recipes.load(recipe).protocol(PROFILE).prompts[PROFILE]


def template(family: str, rng: random.Random) -> str:
    return rng.choice(templates(family)).text


def worded(wording: str, offered: Sequence[str] = (), **slots: Any) -> str:
    """The wording, filled as it is for training and evaluation."""
    candidates = Candidates(tuple(offered)) if offered else None
    shown = (MediaRef("scene_text", BLANK),)
    return fill(wording, Sample("corpus/text/0", "corpus", "text", Form.instruct, shown, slots, candidates=candidates))


def some(found: Sequence[Any], number: int, rng: random.Random) -> list[Any]:
    return rng.sample(found, min(number, len(found)))


def asked(scene: Scene, rng: random.Random) -> list[Turn]:
    """The held-in questions: two of each program, and one backwards, from the answer to the question."""
    found = [question for ask in (*PROGRAMS.values(), known_fact) for question in some(ask(scene), 2, rng)]
    turns = [answered(question, template("vqa", rng)) for question in found]
    back = rng.choice(found)
    return [*turns, Turn(worded(template("vqg", rng), answer=back.answer), back.text)]


def answered(question: Question, wording: str, **slots: Any) -> Turn:
    return Turn(worded(wording, question=question.text, **slots), question.answer)


def related(scene: Scene, rng: random.Random) -> list[Turn]:
    hops = [Turn(worded(prompt("gqa"), question=hop.text), hop.answer) for hop in some(two_hop(scene), 3, rng)]
    judged = some(statements(scene), 3, rng)
    words = verbaliser("truefalse")
    return hops + [
        Turn(worded(prompt("vsr"), statement=each.text), rng.choice(words[int(each.true)])) for each in judged
    ]


def chosen(scene: Scene, rng: random.Random) -> list[Turn]:
    turns = []
    for closed in (*some(counting(scene), 3, rng), *some(comparing(scene), 3, rng)):
        offered, _ = closed.options(rng)
        turns.append(Turn(worded(prompt("iconqa"), offered, question=closed.text), closed.answer))
    return turns


def by_rule(scene: Scene, rng: random.Random) -> list[Turn]:
    turns = []
    for each in some(ruled(scene), 3, rng):
        pairs, gold = each.context(rng)
        offered = [f"It {DOINGS[doing]}." for _, doing in some(pairs, len(pairs), rng)]
        context = f"{listed([rule(value, each.kind, doing) for value, doing in pairs])}."
        text = worded(prompt("scienceqa"), offered, context=context, question=each.text)
        turns.append(Turn(text, f"It {DOINGS[pairs[gold][1]]}."))
    return turns


def conversed(scene: Scene, rng: random.Random) -> list[Turn]:
    """Rounds that refer back: the history is in the prompt, so every round is asked for itself."""
    held = rounds(scene, ROUNDS, rng)
    turns = []
    for place in some(range(len(held)), TURNS, rng):
        history = tuple((past.question, past.answer) for past in held[:place])
        turns.append(
            Turn(worded(prompt("visdial"), question=held[place].question, history=history), held[place].answer)
        )
    return turns


def spoken(scene: Scene, rng: random.Random) -> list[Turn]:
    speak = rng.choice(list(SPEECH.values()))
    return [Turn(turn.human, turn.reply) for turn in speak(scene, rng, Counter())]


def captioned(scene: Scene, rng: random.Random, grammar: Grammar) -> list[Turn]:
    return [Turn(worded(template("caption", rng)), caption) for caption in captions(scene, rng, 1, grammar)]


def reading(scene: Scene, rng: random.Random) -> list[Turn]:
    tokens = tuple(token.word for token in read(scene, rng))
    found = some(word_on(scene), 5, rng)
    return [answered(question, prompt("textvqa"), ocr=tokens) for question in found] + captioned(scene, rng, LETTERED)


def covers(scene: Scene, rng: random.Random) -> list[Turn]:
    return [answered(question, template("vqa", rng)) for question in books.questions(scene, rng)]


def plain(scene: Scene, rng: random.Random) -> list[Turn]:
    """Held-in and held-out programs alike; captions and speech, which are long, more seldom."""
    turns = asked(scene, rng) + related(scene, rng) + chosen(scene, rng) + some(by_rule(scene, rng), 2, rng)
    if rng.random() < LONG:
        turns += captioned(scene, rng, LISTED) + some(spoken(scene, rng), 1, rng)
    return turns


KINDS: tuple[tuple[float, Draw, Say], ...] = (  # how often, what scenes, what is said about them in the same words
    (10.0, partial(sample, domains=(Domain.inside, Domain.inside, Domain.near, Domain.outside)), plain),
    (2.0, partial(sample, counts=(2, 3, 4), words=(1, 2, 3)), reading),
    (1.5, books.cover, covers),
)


def texts(number: int, seed: int) -> Iterator[Row]:
    """Rows of the reader `own`: a scene in words with a first question, and more of them that follow."""
    rng = random.Random(f"{seed}/texts")
    while number:
        shown, turns = rng.choices(MAKERS, SHARES)[0](rng)
        if turns:
            yield _row(shown, some(turns, TURNS, rng))
            number -= 1


def dialogues(number: int, seed: int) -> Iterator[Row]:
    """The same of Visual Dialog's rounds, whose histories are long: apart, so that a step's rows are of like length."""
    rng = random.Random(f"{seed}/dialogues")
    for _ in range(number):
        scene = spared(many, rng)
        yield _row(tell(scene.objects), conversed(scene, rng))


def _row(shown: str, turns: Sequence[Turn]) -> Row:
    """As many of the turns as there is room for."""
    first, *others = turns
    row: Row = {"image": BLANK, "instruction": f"{shown} {first.asked}", "response": first.said}
    room = ROOM - len(row["instruction"])
    for place, turn in enumerate(others):
        if (room := room - len(turn.asked) - len(turn.said)) < 0:
            return row | {"following": others[:place]}
    return row | {"following": others}


def _of(draw: Draw, say: Say, rng: random.Random) -> tuple[str, list[Turn]]:
    scene = spared(draw, rng)
    return tell(scene.objects), say(scene, rng)


def spared(draw: Draw, rng: random.Random) -> Scene:
    """A scene that is kept for language."""
    while (scene := draw(rng)).role is not Role.language:
        pass
    return scene


def _striped(rng: random.Random) -> tuple[str, list[Turn]]:
    scene = spared(sample, rng)
    return f"{tell(scene.objects)} {STRIPES_SEEN}", captioned(scene, rng, STRIPED)


def _photographed(rng: random.Random) -> tuple[str, list[Turn]]:
    picture = Picture(0, "", spared(few, rng), rng.choice(SNAPSHOTS))
    found = [snapshots.ask(picture.scene, picture.look, Counter(), rng) for _ in range(TURNS)]
    turns = [answered(question, prompt("vizwiz")) for question in dict.fromkeys(filter(None, found))]
    return tell_picture(picture), turns


def _moving(rng: random.Random) -> tuple[str, list[Turn]]:
    scene = spared(partial(sample, counts=(2, 3)), rng)
    clip = rng.choice([each for each in moves(scene) if each.after.role is Role.language] or [Clip(scene)])
    if not clip.mover:
        still = ("what shape is moving?", "what color is the moving shape?")
        return tell_clip(clip), [Turn(worded(prompt("ivqa"), question=each), "none") for each in still]
    found = [question for ask in MOVING.values() for question in ask(clip)]
    return tell_clip(clip), [answered(question, prompt("msvd_qa")) for question in found]


def _memes(rng: random.Random) -> tuple[str, list[Turn]]:
    meme = rng.choice(labelled([spared(draw_things, rng)], rng))
    words = verbaliser("yesno")
    return tell_meme(meme), [Turn(worded(prompt("hateful_memes"), statement=meme.word), rng.choice(words[meme.label]))]


Maker = Callable[[random.Random], tuple[str, list[Turn]]]
MAKERS: tuple[Maker, ...] = (
    *(partial(_of, draw, say) for _, draw, say in KINDS),
    _striped,
    _photographed,
    _moving,
    _memes,
)
SHARES = (*(share for share, _, _ in KINDS), 0.5, 2.0, 2.0, 2.0)


def pictures(world: World) -> Iterator[Row]:
    """Rows of `image`, below the raw tree, and `response`, its words; no pair of shape and colour that is withheld."""
    for name, album in ALBUMS.items():
        for picture in () if name in UNASKED else world.pictures(name):
            if picture.scene.domain is Domain.inside:
                yield {"image": f"{album.pool}/{picture.file}", "response": tell_picture(picture)}
