"""The wording: slots by name, captions as LAVIS writes them, nothing reached beneath a slot."""

from __future__ import annotations

import pytest

from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.data.templates import Template, blip_caption, fill, render, templates
from instructblip.recipes import ResponseText

SAMPLE = Sample(
    "vqav2/train/1",
    "vqav2",
    "train",
    Form.vqa,
    (MediaRef("coco", "1"),),
    slots={"question": "Is {it} a dog?", "ocr": ("a",)},
)


def test_an_example_knows_where_it_comes_from() -> None:
    example = render(SAMPLE, Template("vqa-04", "Q: {question} A:"), Answer("Yes, a Dog."), ResponseText.raw)
    assert (example.instruction, example.response) == ("Q: Is {it} a dog? A:", "Yes, a Dog.")
    assert (example.recipe, example.uid, example.template) == ("vqav2", "vqav2/train/1", "vqa-04")


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("A man with a red helmet. ", "a man with a red helmet"),
        ('Two "cats" (small) & one #dog; ok?', "two cats small & one dog ok?"),
        ("A close-up, of food!", "a close-up, of food"),
        (" ".join(["word"] * 60), " ".join(["word"] * 50)),
    ],
)
def test_captions_are_written_as_blip_caption_does(raw: str, written: str) -> None:
    assert blip_caption(raw) == written


def test_the_papers_wordings() -> None:
    assert templates("caption")[0].text == "A short image caption:"
    texts = [template.text for template in templates("vqa")]
    assert texts[3] == "Q: {question} A:" and all("{question}" in text for text in texts)
    assert len({template.id for family in ("caption", "vqa") for template in templates(family)}) == 23


@pytest.mark.parametrize("text", ["{statement}", "{ocr}", "{0}"])
def test_a_slot_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="vqav2/train/1 has no slot"):
        fill(text, SAMPLE)


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'caption'"):
        templates("captions")
