"""Inputs without instructions: what the multitask baselines of the paper's Figure 4 read (PAPER E.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from instructblip.data.sample import Form
from instructblip.files import read_yaml
from instructblip.names import lookup
from instructblip.protocols import Evaluation, Mode

FILE = Path(__file__).resolve().parent.parent / "data_recipes" / "multitask" / "wording.yaml"
OCR = "[[OCR tokens: {ocr}. ]]"  # before any wording that does not place them (paper, Table 5)
PROFILES = ("plain", "dataset_names")  # prompts of every protocol beside its own


@dataclass
class Wordings:
    """`inputs` by template family or form, with named slots; the display names of tasks and datasets."""

    inputs: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)


@cache
def wordings() -> Wordings:
    return read_yaml(FILE, Wordings)


def bare(kind: str) -> str:
    """The input of a template family or form; empty where it is the picture alone."""
    return lookup(kind, wordings().inputs, "template family or form without instructions")


def identified(task: str, recipe: str, kind: str) -> str:
    """The same behind `[Task:Dataset]`, or `[Task]` for a dataset that is not held-in."""
    name = lookup(task, wordings().tasks, "task to name")
    if recipe in wordings().datasets:
        name += f":{wordings().datasets[recipe]}"
    return f"[{name}] {bare(kind)}".rstrip()


def prompt(profile: str, task: str, recipe: str, form: Form, protocol: Evaluation) -> str:
    """A test prompt of the baselines.

    `plain`: captions from the picture alone, everything else by the protocol's first profile, the paper's instructions:
    so the paper tests what was trained without any. `dataset_names`: as in training.
    """
    if profile == "dataset_names":
        options = protocol.mode is Mode.rank and protocol.vocabulary is None and form is Form.vqa  # A-OKVQA's choices
        return OCR + identified(task, recipe, "choice" if options else form.value)
    return OCR + bare(form.value) if form is Form.caption else next(iter(protocol.prompts.values()))
