"""What each set of the miniature asks and shows: the design that makes the held-out sets held out.

A *program* is a kind of question or statement. None of a held-out set is used by a held-in set or by the alignment
of the backbone; the language model may know them all from text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    programs: frozenset[str]
    objects: range  # how many a scene may have
    style: str = "plain"
    withheld: bool = False  # whether pairs of shape and colour occur that no tuned picture has


def _entry(programs: str, fewest: int, most: int, style: str = "plain", withheld: bool = False) -> Entry:
    return Entry(frozenset(programs.split()), range(fewest, most + 1), style, withheld)


VQA = "colour-of what-at where exists"
HELD_IN = {
    "coco_caption": _entry("list-objects", 1, 4),
    "web_capfilt": _entry("list-objects", 1, 4),
    "textcaps": _entry("list-objects-and-words", 1, 4, style="printed"),
    "vqav2": _entry(VQA, 1, 4),
    "okvqa": _entry("known-fact", 1, 4),
    "aokvqa": _entry("known-fact", 1, 4),
    "ocrvqa": _entry("title author genre about-genre", 3, 4, style="cover"),
    "vqav2_vqg": _entry(VQA, 1, 4),
    "okvqa_vqg": _entry("known-fact", 1, 4),
    "aokvqa_vqg": _entry("known-fact", 1, 4),
    "llava_conversation": _entry("dialogue", 1, 4),
    "llava_detail": _entry("detail", 1, 4),
    "llava_reasoning": _entry("why", 1, 4),
}
HELD_OUT = {
    "nocaps": _entry("list-new-objects", 2, 4, withheld=True),
    "flickr30k": _entry("list-objects-in-other-words", 1, 4, style="striped"),
    "gqa": _entry("two-hop", 2, 4),
    "vsr": _entry("relation-statement", 2, 4),
    "iconqa": _entry("counting comparing", 2, 5, style="outline"),
    "scienceqa": _entry("rule-in-context", 2, 4),
    "textvqa": _entry("word-on", 2, 4, style="printed"),
    "visdial": _entry("coreference", 5, 7),
    "hateful_memes": _entry("word-contradicts-picture", 2, 3, style="meme"),
    "vizwiz": _entry("seen-or-unanswerable", 2, 4, style="blurred and cropped"),
    "msvd_qa": _entry("what-moves direction before-after", 2, 3, style="clip"),
    "msrvtt_qa": _entry("what-moves direction before-after", 2, 3, style="clip"),
    "ivqa": _entry("what-moves direction before-after", 2, 3, style="clip"),
}
PROGRAMS_OF = {**HELD_IN, **HELD_OUT}
ALIGNMENT = frozenset({"list-objects"})  # what the backbone's Q-Former is aligned with
