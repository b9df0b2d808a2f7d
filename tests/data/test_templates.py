"""The wording: slots by name, captions as LAVIS writes them, nothing reached beneath a slot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instructblip import recipes
from instructblip.choices import Wording
from instructblip.config.data import WordingConfig
from instructblip.data.sample import Answer, Candidates, Form, MediaRef, Sample, question_generation
from instructblip.data.templates import Template, blip_caption, fill, render, templates, wordings
from instructblip.recipes import ResponseText

SAMPLE = Sample(
    "vqav2/train/1",
    "vqav2",
    "train",
    Form.vqa,
    (MediaRef("coco", "1"),),
    slots={"question": "Is {it} a dog?"},
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


def test_ocr_tokens_stand_in_front_unless_the_wording_places_them() -> None:
    read = replace(SAMPLE, slots={"question": "Which?", "ocr": tuple(str(number) for number in range(40))})
    example = render(read, Template("vqa-04", "Q: {question} A:"), Answer("x"), ResponseText.raw)
    assert example.instruction == f"OCR tokens: {', '.join(map(str, range(30)))}. Q: Which? A:"
    placed = render(read, Template("t", "{question} ({ocr})"), Answer("x"), ResponseText.raw).instruction
    assert placed.startswith("Which? (0, 1") and placed.count("29") == 1
    nothing_read = replace(read, slots={"question": "Which?", "ocr": ()})
    assert (
        render(nothing_read, Template("t", "Q: {question}"), Answer("x"), ResponseText.raw).instruction == "Q: Which?"
    )


@pytest.mark.parametrize(
    ("style", "recipe", "instruction"),
    [
        (Wording.plain, "vqav2", "Which?"),
        (Wording.plain, "coco_caption", ""),
        (Wording.plain, "vqav2_vqg", "red"),
        (Wording.plain, "llava_detail", "Describe."),
        (Wording.dataset_names, "vqav2", "[Visual question answering:VQAv2] Which?"),
        (Wording.dataset_names, "coco_caption", "[Image captioning:COCO Caption]"),
        (Wording.dataset_names, "aokvqa_vqg", "[Visual question generation:A-OKVQA] red"),
        (Wording.dataset_names, "gqa", "[Visual reasoning] Which?"),
    ],
)
def test_the_multitask_baselines_read_the_bare_input(style: Wording, recipe: str, instruction: str) -> None:
    (template,) = wordings(recipes.load(recipe), "train", WordingConfig(style))
    slots = {"question": "Which?", "instruction": "Describe."}
    form = Form.vqg if recipe.endswith("vqg") else Form.vqa
    sample = replace(SAMPLE, form=form, slots=slots)
    assert render(sample, template, Answer("red"), ResponseText.raw).instruction == instruction
    read = render(replace(sample, slots={**slots, "ocr": ("a", "b")}), template, Answer("red"), ResponseText.raw)
    assert read.instruction == f"OCR tokens: a, b. {instruction}"


@pytest.mark.parametrize("name", recipes.names())
def test_every_training_split_has_a_bare_input(name: str) -> None:
    recipe = recipes.load(name)
    for split in recipe.train if recipe.templates else ():
        (plain,) = wordings(recipe, split, WordingConfig(Wording.plain))
        (named,) = wordings(recipe, split, WordingConfig(Wording.dataset_names))
        assert named.text.endswith(plain.text) and named.text.startswith("[")


def test_templates_that_are_kept_are_the_only_ones() -> None:
    recipe = recipes.load("vqav2")
    assert len(wordings(recipe, "train", WordingConfig())) == 10
    kept = wordings(recipe, "train", WordingConfig(keep={"vqa": ["vqa-05"], "caption": ["caption-02"]}))
    assert [template.text for template in kept] == ["Question: {question} Short answer:"]
    assert len(wordings(recipe, "train", WordingConfig(keep={"caption": ["caption-02"]}))) == 10
    for keep, said in (
        ({"vqa": ["vqa-5"]}, "did you mean 'vqa-05'"),
        ({"vqa": []}, "vqa is empty"),
        ({"vq": ["x"]}, "vqa"),
    ):
        with pytest.raises(ValueError, match=said):
            wordings(recipe, "train", WordingConfig(keep=keep))
    with pytest.raises(ValueError, match=r"is not used by wording\.style=plain"):
        wordings(recipe, "train", WordingConfig(Wording.plain, keep={"vqa": ["vqa-05"]}))


def test_a_wording_without_words_is_the_picture_alone_a_blank_slot_is_not() -> None:
    assert fill("", SAMPLE) == fill("[[OCR tokens: {ocr}. ]]", SAMPLE) == ""
    with pytest.raises(ValueError, match=r"vqav2/train/1: the wording '\{question\}' leaves an empty instruction"):
        fill("{question}", replace(SAMPLE, slots={"question": " "}))


def test_optional_parts_options_and_history() -> None:
    turns = (("Is it red?", "yes"), ("And large?", "no"))
    sample = replace(
        SAMPLE, slots={"question": "Why?", "context": "", "history": turns}, candidates=Candidates(("a b", "c"))
    )
    prompt = "[[Context: {context} ]][[Dialog: {history}\n ]]Question: {question} Options: {options}."
    assert fill(prompt, sample) == (
        "Dialog: Question: Is it red? Answer: yes Question: And large? Answer: no\n Question: Why? Options: (a) a b (b) c."
    )


def test_question_generation_swaps_the_roles() -> None:
    swapped = question_generation(replace(SAMPLE, candidates=Candidates(("a", "b")), gold=1), "vqav2_vqg")
    assert (swapped.uid, swapped.dataset, swapped.form, swapped.gold) == (
        "vqav2_vqg/train/1",
        "vqav2_vqg",
        Form.vqg,
        None,
    )
    example = render(swapped, Template("vqg", "A question for {answer}:"), Answer("net"), ResponseText.raw)
    assert (example.instruction, example.response) == ("A question for net:", "Is {it} a dog?")


@pytest.mark.parametrize("text", ["{statement}", "{ocr}", "{0}"])
def test_a_slot_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="vqav2/train/1 has no slot"):
        fill(text, SAMPLE)


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'caption'"):
        templates("captions")
