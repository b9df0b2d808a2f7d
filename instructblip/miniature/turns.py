"""What may be asked of a scene in words, and what is said to it: every program, held-out ones too.

A `Manner` puts the questions: in the wordings of the recipes, or bare, which asks the same in a third of the tokens.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from instructblip import recipes
from instructblip.data.sample import Candidates, Form, MediaRef, Sample
from instructblip.data.templates import fill, templates
from instructblip.evaluation.answers import verbaliser
from instructblip.miniature import books, snapshots
from instructblip.miniature.clips import PROGRAMS as MOVING
from instructblip.miniature.clips import Clip
from instructblip.miniature.coreference import BACK, rounds
from instructblip.miniature.dialogues import SPEECH
from instructblip.miniature.drawing import Look
from instructblip.miniature.knowledge import known_fact
from instructblip.miniature.lettering import read, word_on
from instructblip.miniature.memes import Meme
from instructblip.miniature.programs import PROGRAMS, Grammar, caption
from instructblip.miniature.reasoning import Ruled, comparing, counting, ruled, statements, two_hop
from instructblip.miniature.scenes import Scene
from instructblip.miniature.telling import tell_word
from instructblip.miniature.writers.dialogues import ROUNDS
from instructblip.miniature.writers.reasoning import conclusion, told_rules

PROFILE = "paper"
LOOKUPS = ("colour-of", "what-at", "where")  # the questions that one object's words answer
BARE_ROUNDS = 6  # of one dialogue
PER_PROGRAM = 2  # questions about one scene; of those whose answers are few, one more


class Turn(NamedTuple):
    asked: str
    said: str
    program: str  # as `design` names them; `backwards` from an answer to its question

    def behind(self, shown: str) -> str:
        """The prompt of one who is told the scene."""
        return f"{shown} {self.asked}".strip()


@dataclass(frozen=True)
class Manner:
    """How a question is put. `bare` is the question alone, a statement alone, the context before its question."""

    bare: bool

    def held_out(self, recipe: str, offered: Sequence[str] = (), **slots: Any) -> str:
        """In the paper's prompt of a held-out set."""
        if not self.bare:
            return worded(_prompt(recipe), offered, **slots)
        return " ".join(slots[name] for name in ("context", "statement", "question") if name in slots)

    def held_in(self, family: str, rng: random.Random, **slots: Any) -> str:
        """In a wording of the training templates."""
        return slots["question"] if self.bare else worded(rng.choice(templates(family)).text, **slots)


BARE, WORDED = Manner(bare=True), Manner(bare=False)
Say = Callable[[Scene, Manner, random.Random], list[Turn]]


def worded(wording: str, offered: Sequence[str] = (), **slots: Any) -> str:
    """The wording, filled as it is for training and evaluation."""
    candidates = Candidates(tuple(offered)) if offered else None
    shown = (MediaRef("scene_text", ""),)
    return fill(wording, Sample("corpus/text/0", "corpus", "text", Form.instruct, shown, slots, candidates=candidates))


def some(found: Sequence[Any], number: int, rng: random.Random) -> list[Any]:
    return rng.sample(found, min(number, len(found)))


def plain(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    """Of every program that a plain scene answers."""
    return [turn for ask in (held_in, related, chosen, by_rule) for turn in ask(scene, manner, rng)]


def looked_up(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    """All that one object's words answer."""
    found = [(name, each) for name in LOOKUPS for each in PROGRAMS[name](scene)]
    return [Turn(manner.held_in("vqa", rng, question=each.text), each.answer, name) for name, each in found]


def held_in(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    """The held-in programs and, unless bare, one question backwards: from the answer to the question."""
    programs = {**PROGRAMS, "known-fact": known_fact}
    found = [(name, each) for name, ask in programs.items() for each in some(ask(scene), PER_PROGRAM, rng)]
    turns = [Turn(manner.held_in("vqa", rng, question=each.text), each.answer, name) for name, each in found]
    if manner.bare:
        return turns
    _, back = rng.choice(found)
    return [*turns, Turn(manner.held_in("vqg", rng, answer=back.answer), back.text, "backwards")]


def related(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    hops = [answered("gqa", "two-hop", hop, manner) for hop in some(two_hop(scene), PER_PROGRAM + 1, rng)]
    judged = [
        Turn(manner.held_out("vsr", statement=each.text), word("truefalse", each.true), "relation-statement")
        for each in some(statements(scene), PER_PROGRAM + 1, rng)
    ]
    return hops + judged


def chosen(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    return [
        answered("iconqa", name, each, manner, each.options(rng)[0])
        for name, ask in (("counting", counting), ("comparing", comparing))
        for each in some(ask(scene), PER_PROGRAM + 1, rng)
    ]


def by_rule(scene: Scene, manner: Manner, rng: random.Random, number: int = PER_PROGRAM) -> list[Turn]:
    return [_by_rule(each, manner, rng) for each in some(ruled(scene), number, rng)]


def _by_rule(each: Ruled, manner: Manner, rng: random.Random) -> Turn:
    pairs, gold = each.context(rng)
    offered = [conclusion(*pair) for pair in some(pairs, len(pairs), rng)]
    asked = manner.held_out("scienceqa", offered, context=told_rules(each.kind, pairs), question=each.text)
    return Turn(asked, conclusion(*pairs[gold]), "rule-in-context")


def of_one_kind(scene: Scene, rng: random.Random) -> tuple[str, list[Turn]]:
    """A context of rules, and all that is asked of the scene by them, bare."""
    among = ruled(scene)
    pairs, _ = rng.choice(among).context(rng)
    does = dict(pairs)
    asked = [each for each in among if each.value in does]
    return told_rules(asked[0].kind, pairs), [
        Turn(each.text, conclusion(each.value, does[each.value]), "rule-in-context") for each in asked
    ]


def conversed(scene: Scene, manner: Manner, rng: random.Random, back: bool = False) -> list[Turn]:
    """Rounds that refer back, with the history they refer to in the prompt; with `back` those answered yes or no."""
    held = rounds(scene, ROUNDS, rng)
    turns = []
    fitting = [place for place, each in enumerate(held) if not back or each.kind.startswith(BACK)]
    places = some(fitting, BARE_ROUNDS if manner.bare else PER_PROGRAM, rng)
    for place in sorted(places):  # short histories first: more of them find room
        history = tuple((past.question, past.answer) for past in held[:place])
        if manner.bare:
            asked = " ".join([*(text for past in history for text in past), held[place].question])
        else:
            asked = manner.held_out("visdial", question=held[place].question, history=history)
        turns.append(Turn(asked, held[place].answer, "coreference"))
    return turns


def captioned(scene: Scene, program: str, rng: random.Random, grammar: Grammar) -> list[Turn]:
    return [Turn(WORDED.held_in("caption", rng), caption(scene, rng, grammar), program)]


def described(scene: Scene, rng: random.Random) -> list[Turn]:
    """A caption without being asked for one, as the second stage has the language model say it."""
    return [Turn("", caption(scene, rng), "list-objects")]


def spoken(scene: Scene, rng: random.Random) -> list[Turn]:
    name, speak = rng.choice(list(SPEECH.items()))
    return [Turn(turn.human, turn.reply, name) for turn in speak(scene, rng, Counter())]


def lettered(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    tokens = tuple(token.word for token in read(scene, rng))
    return [answered("textvqa", "word-on", each, manner, ocr=tokens) for each in word_on(scene)]


def covers(scene: Scene, manner: Manner, rng: random.Random) -> list[Turn]:
    return [
        Turn(manner.held_in("vqa", rng, question=each.text), each.answer, books.program(each.text))
        for each in books.questions(scene, rng)
    ]


def moving(clip: Clip, manner: Manner) -> list[Turn]:
    if not clip.mover:
        still = ("what shape is moving?", "what color is the moving shape?")
        return [Turn(manner.held_out("ivqa", question=each), "none", "what-moves") for each in still]
    return [answered("msvd_qa", name, each, manner) for name, ask in MOVING.items() for each in ask(clip)]


def judged(meme: Meme, manner: Manner) -> Turn:
    asked = manner.held_out("hateful_memes", statement=meme.word)
    return Turn(f"{tell_word(meme)} {asked}", word("yesno", meme.label), "word-contradicts-picture")


def photographed(scene: Scene, look: Look, manner: Manner, rng: random.Random) -> list[Turn]:
    found = snapshots.about_this(scene, look)
    return [
        Turn(manner.held_out("vizwiz", question=snapshots.spoken(each.text, rng)), each.answer, "seen-or-unanswerable")
        for each in rng.sample(found, len(found))
    ]


def answered(
    recipe: str, program: str, question: Any, manner: Manner, offered: Sequence[str] = (), **slots: Any
) -> Turn:
    """`question` has a text and an answer."""
    return Turn(manner.held_out(recipe, offered, question=question.text, **slots), question.answer, program)


def word(vocabulary: str, label: int) -> str:
    """The first of the words that the evaluation counts for a label."""
    return verbaliser(vocabulary)[label][0]


@cache
def _prompt(recipe: str) -> str:
    return recipes.load(recipe).protocol(PROFILE).prompts[PROFILE]
