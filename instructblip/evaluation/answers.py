"""Short answers as the official VQA scorers see them, and the words a yes/no decision may be said with.

Normalising is not one rule: the official scorer changed between its 2017 and 2021 versions, and the EvalAI
server has a third. Each quirk kept here decides real points, so each is named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from instructblip.files import read_yaml
from instructblip.names import require
from instructblip.recipes import RECIPES

MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset(["a", "an", "the"])
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
MAX_PERIODS = 32  # the official code passes a regex flag where `re.sub` takes its count

CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've
    mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all
    y'all'd've y'all'll you'd you'd've you'll you're you've
"""
# The official table mends every spelling with one apostrophe left out; only "somebody'd" goes the other way.
# Its upper-case entries (Im, Ive, Id've) never match, since the text is in lower case by then.
CONTRACTIONS = {"somebody'd": "somebodyd"} | {
    word[:at] + word[at + 1 :]: word for word in CONTRACTED.split() for at, letter in enumerate(word) if letter == "'"
}


def flat(text: str) -> str:
    """Line breaks and tabs as blanks, outer blanks gone: what the official `evaluate` does first."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def strip_punctuation(text: str) -> str:
    """GT-Vision-Lab/VQA `vqaEval.py`, `processPunctuation`.

    A mark that somewhere stands next to a blank is deleted everywhere, any other becomes a blank; a comma
    between two digits deletes all marks. A full stop goes unless a digit follows it.
    """
    digit_comma = re.search(r"\d,\d", text) is not None
    beside_blank = {mark for mark in MARKS if f"{mark} " in text or f" {mark}" in text}
    text = text.translate({ord(mark): "" if digit_comma or mark in beside_blank else " " for mark in MARKS})
    return re.sub(r"\.(?!\d)", "", text, count=MAX_PERIODS)


def plain_words(text: str) -> str:
    """`processDigitArticle`: lower case, numbers up to ten as digits, no articles, apostrophes mended."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalize(text: str) -> str:
    """An answer as GT-Vision-Lab/VQA compares it."""
    return plain_words(strip_punctuation(flat(text)))


def normalize_evalai(text: str) -> str:
    """facebookresearch/mmf `EvalAIAnswerProcessor`: `,` and `?` go first, `'s` becomes a word."""
    return normalize(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def _official_2021(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Both sides normalised, but neither when all annotators agree."""
    texts = [flat(answer) for answer in answers]
    if len(set(texts)) == 1:
        return flat(prediction), texts
    return normalize(prediction), [normalize(text) for text in texts]


def _official_2017(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """LAVIS' version: the prediction always normalised, the answers without punctuation if they differ."""
    if len(set(answers)) == 1:
        return normalize(prediction), list(answers)
    return normalize(prediction), [strip_punctuation(answer) for answer in answers]


def _evalai(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    return normalize_evalai(prediction), [normalize_evalai(answer) for answer in answers]


VARIANTS: dict[str, Callable[[str, Sequence[str]], tuple[str, list[str]]]] = {
    "official_2021": _official_2021,
    "official_2017": _official_2017,
    "evalai": _evalai,
}


@dataclass
class Verbaliser:
    """The words each class of a decision may be said with, in the order of the source's labels."""

    classes: list[list[str]] = field(default_factory=list)


@cache
def verbaliser(vocab: str) -> tuple[tuple[str, ...], ...]:
    """The classes of `data_recipes/vocab/<vocab>.yaml`. Raises ValueError when that is no set of words."""
    folder = RECIPES / "vocab"
    require(vocab, [path.stem for path in folder.glob("*.yaml")], "vocabulary")
    path = folder / f"{vocab}.yaml"
    classes = read_yaml(path, Verbaliser).classes
    words = [word for each in classes for word in each]
    if len(classes) < 2 or not all(classes) or len(set(words)) < len(words):
        raise ValueError(f"{path}: needs two or more classes of words and no word twice; it has {classes}")
    return tuple(tuple(each) for each in classes)


def class_scores(scores: Sequence[float], classes: Sequence[Sequence[str]]) -> list[float]:
    """Per class log(sum(exp(score))): how likely any of its words is said.

    `scores` holds one log-likelihood a word, class by class. The paper widens its binary tasks by synonyms
    (p.6) and
    does not say how they are joined; the sum of probabilities is our choice.
    """
    assert len(scores) == sum(map(len, classes)), f"{len(scores)} scores for {classes}"
    rest = iter(scores)
    return [_logsumexp([next(rest) for _ in words]) for words in classes]


def _logsumexp(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(sum(math.exp(value - highest) for value in values))
