"""Every prompt that evaluation sends, to the letter: `prompts.txt` changes in the commit that means to change one.

`python -m tests.evaluation.test_prompts` writes the file anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from instructblip import recipes
from instructblip.data.sample import Candidates, Form, MediaRef, Sample
from instructblip.data.templates import fill
from instructblip.evaluation.trials import wordings

SNAPSHOT = Path(__file__).with_name("prompts.txt")
SLOTS = {
    "question": "is it {sunny}, or not",
    "statement": "The cup is near.",
    "caption": "a man and a dog",
    "context": "Look at the map.",
    "ocr": tuple(f"w{number}" for number in range(31)),
    "history": (("who is there", "a man"), ("Is he old?", "no")),
}
BARE = {name: () if name in ("ocr", "history") else "" for name in ("ocr", "history", "context")}


def sample(slots: dict[str, object]) -> Sample:
    items = Candidates(("blue", "a (b)", "blue"))
    return Sample("x/test/1", "x", "test", Form.vqa, (MediaRef("coco", "1"),), slots, candidates=items)


def lines() -> Iterator[str]:
    """One a recipe, variant, profile or template: with every slot filled, then without what may be absent."""
    for name in recipes.names():
        recipe = recipes.load(name)
        plain = wordings(recipe)
        for variant in (None, *recipe.evaluation.variants) if recipe.evaluation else ():
            prompts = recipe.protocol("paper", variant).prompts
            trained = wordings(recipe, variant)
            for profile, wording in (prompts | (trained if variant is None or trained != plain else {})).items():
                place = " ".join(filter(None, [name, variant, profile]))
                full, bare = (fill(wording, sample(slots)) for slots in (SLOTS, SLOTS | BARE))
                yield f"{place}: {json.dumps(full)}"
                if bare != full:
                    yield f"{place}, bare: {json.dumps(bare)}"


def test_prompts_are_those_of_the_snapshot() -> None:
    found, expected = list(lines()), SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert len(expected) > 100
    assert found == expected, "write it anew with `python -m tests.evaluation.test_prompts` if this is meant"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(lines()) + "\n", encoding="utf-8")
