"""The table of programs holds for what is written: each set, read by its own recipe, asks its programs and no other."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from instructblip import recipes
from instructblip.data.readers.base import Drop
from instructblip.data.readers.registry import read
from instructblip.data.sample import Form, Sample
from instructblip.miniature.design import HELD_IN, PROGRAMS_OF
from instructblip.miniature.knowledge import COLOUR_FACTS, SHAPE_FACTS
from instructblip.miniature.scenes import WITHHELD
from tests.miniature import evaluator
from tests.miniature.files import Pictures

COLOUR, SHAPE = "(?:red|green|blue|yellow|purple|orange)", "(?:circle|square|triangle|star)"
THING, RELATION = rf"{COLOUR} {SHAPE}", "(?:left of|right of|above|below)"
NEW = "|".join(f"{colour} {shape}" for shape, colour in WITHHELD)
PRINTED = "with the word|that says|reading|written on it"
QUESTIONS = {  # of open and closed sets
    **{program: rf"(?:{pattern})" for program, pattern, _ in evaluator.GRAMMAR if program != "word-on"},
    "word-on": "|".join(re.sub(r"\?P<\w+>", "?:", text) for name, text, _ in evaluator.GRAMMAR if name == "word-on"),
    "two-hop": rf"What (?:color|shape) is the thing {RELATION} the {THING}\?",
    "relation-statement": rf"The {THING} is {RELATION} the {THING}\.",
    "counting": rf"How many (?:shape|{SHAPE})s are there\?",
    "comparing": rf"Are there more {SHAPE}s than {SHAPE}s\?|Which (?:shape|color) is there most of\?"
    r"|Which picture has as many shapes as this one\?",
    "rule-in-context": r"(?:.+\. )?What does the .+ do\?",
    "word-contradicts-picture": f"{COLOUR}|{SHAPE}",
    "what-moves": r"(?i:what shape is moving|what color is the moving shape)\??",
    "direction": rf"(?i:which way does the {THING} move)\??",
    "before-after": rf"(?i:in which (?:column|row) is the {THING} at (?:first|the end))\??",
    "coreference": (
        rf"what (?:does the {SHAPE} look like|about the other {SHAPE}|is furthest \w+|is {RELATION} (?:it|the {THING})|"
        rf"comes (?:first|last) in reading order|comes right (?:after|before) it)|is it {COLOUR}"
    ),
}
CAPTIONS = {
    "list-objects-in-other-words": r".*\b[Ss]trip.*",
    "list-objects-and-words": rf"(?!.*\bstrip).*(?:{PRINTED}).*",
    "list-new-objects": rf"(?!.*(?:\bstrip|{PRINTED})).*(?:{NEW}).*",
    "list-objects": rf"(?!.*(?:\bstrip|{PRINTED}|{NEW})).*{THING}.*",
}
SPEECH = {  # a request and its reply
    "dialogue": r"(?:What|Where|Is)\b[^?]+\? (?:The|Yes|No)\b[^.]+\.",
    "detail": r".+ (?:The picture shows|This is a drawing|The image is)\b.+",
    "why": r".+ Because there is .+, and .+\.",
}
ALSO = {"nocaps": {"list-objects"}}  # of its pictures that show nothing new


def samples(name: str, tree: Path) -> Iterator[Sample]:
    """Of every split whose files are written."""
    recipe = recipes.load(name)
    for split, facts in recipe.splits.items():
        if all(any(tree.glob(f"{recipe.source}/{file}")) for file in facts.files):
            yield from (item for item in read(recipe, split, tree) if not isinstance(item, Drop))


def programs(sample: Sample) -> Iterator[str]:
    """The program of each of its texts; raises where it is none, or more than one."""
    if sample.form is Form.caption:
        grammar, texts = CAPTIONS, [answer.text for answer in sample.answers]
    elif sample.form is Form.instruct:
        grammar, texts = SPEECH, [f"{sample.slots['instruction']} {answer.text}" for answer in sample.answers]
    else:
        grammar, texts = QUESTIONS, [sample.slots.get("question") or sample.slots["statement"]]
    for text in texts:
        found = [name for name, pattern in grammar.items() if re.fullmatch(pattern, text)]
        assert len(found) == 1, (text, found)
        yield found[0]


@pytest.mark.parametrize("name", PROGRAMS_OF)
def test_each_set_asks_its_programs_and_no_other(name: str, tree: Path, by_key: Pictures) -> None:
    """A view reads the files of its parent."""
    design, asked = PROGRAMS_OF[name], defaultdict[str, int](int)
    view_of = recipes.load(name).view_of
    for sample in samples(view_of or name, tree):
        for program in programs(sample):
            asked[program] += 1
        picture = by_key.get((sample.media[0].pool, sample.media[0].key))
        assert picture is None or len(picture.scene.objects) in design.objects
    assert set(asked) - ALSO.get(name, set()) == design.programs


@pytest.mark.parametrize(
    "name", ["llava_conversation", "llava_detail", "llava_reasoning", "coco_caption", "web_capfilt"]
)
def test_no_other_tuned_text_states_a_fact_that_is_asked(name: str, tree: Path) -> None:
    """What OK-VQA asks is known from the language model's own text alone; printed words are no facts."""
    assert name in HELD_IN
    things = {thing for fact in (*COLOUR_FACTS, *SHAPE_FACTS) for pair in fact.answers.values() for thing in pair}
    known = re.compile(rf"\b(?:{'|'.join(sorted(things))})\b")
    for sample in samples(name, tree):
        for text in (*map(str, sample.slots.values()), *(answer.text for answer in sample.answers)):
            assert not known.search(text), text
