"""`report.py lens=true`: one picture looked at under several instructions, or many scenes measured."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from rich.table import Table

from instructblip.config.evaluation import ReportConfig
from instructblip.data.processor import open_picture
from instructblip.evaluation.lens import drawing
from instructblip.evaluation.lens.finding import find
from instructblip.evaluation.pages.lenses import Facts, Look, save, section
from instructblip.evaluation.pages.page import write
from instructblip.evaluation.parts import Share
from instructblip.evaluation.predict import device
from instructblip.evaluation.subject import subject
from instructblip.evaluation.tables.rendering import terminal
from instructblip.files import read_text, sha256
from instructblip.inference import Assistant
from instructblip.models.loaded import Loaded
from instructblip.recipes import fingerprint
from instructblip.revision import revision

FEWEST = 2  # instructions: the first two are compared
PNG = "attention.png"


def look_inside(config: ReportConfig, place: Path) -> list[Table | str]:
    """What `lens=true` asks for, and lines that say where it lies.

    Raises ValueError unless it is one thing: image= under instructions=, or scenes=.
    """
    options = {name: getattr(config, name) for name in ("image", "instructions", "scenes", "against")}
    given = sorted(name for name, value in options.items() if value is not None)
    if given == ["image", "instructions"]:
        return [f"Written: {' '.join(map(str, look(config, place)))}"]
    if given in (["scenes"], ["against", "scenes"]):
        found, path = find(config)
        return [terminal(found), *found.notes, f"Written: {path}"]
    raise ValueError(
        "lens=true takes image=FILE and instructions=FILE, or scenes=200 with or without against=RUN; it was given "
        f"{' and '.join(given) or 'neither'}"
    )


def look(config: ReportConfig, place: Path) -> list[Path]:
    """Writes the weights, facts and a PNG into the run's folder and a page into `place`; gives page and PNG.

    Raises ValueError, before a model is loaded, for a run, picture or file that is not there or cannot be read, and
    for fewer than two instructions.
    """
    file = Path(str(config.image))
    instructions = read_instructions(Path(str(config.instructions)))
    picture = open_picture(file)
    asked = subject(config)
    loaded = asked.load(config, device(config.device, Share()))
    seen = looked(loaded, picture, instructions, asked.name, file.name)
    name = f"{file.stem}-{fingerprint([sha256(file), instructions])[:6]}"
    folder = asked.results / "lens" / name
    save(seen, folder)
    drawing.write(seen, folder / PNG)
    page = place / f"lens-{asked.name.replace('/', '-')}-{name}.html"
    title = f"Where {asked.name} looks"
    return [write(page, "lens.html", title=title, look=section(seen), facts=seen.facts), folder / PNG]


def looked(loaded: Loaded, picture: Image.Image, instructions: tuple[str, ...], run: str, name: str) -> Look:
    """Each instruction on its own, so that what another one says cannot change a bit."""
    assistant = Assistant.of(loaded)
    found = [assistant.attention(picture, each) for each in instructions]
    facts = Facts(
        run, name, instructions, tuple(assistant.answer(picture, each) for each in instructions), found[0].layers,
        found[0].grid, loaded.config.qformer.instruction_aware, loaded.checkpoint[:12], revision(),
    )  # fmt: skip
    return Look(facts, torch.stack([each.weights for each in found]), picture)


def read_instructions(path: Path) -> tuple[str, ...]:
    """One a line, blank lines left out. Raises ValueError for fewer than two, or a file that cannot be read."""
    found = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if len(found) < FEWEST:
        raise ValueError(f"{path} holds {len(found)} instructions; give {FEWEST} or more, one a line, to compare two")
    return found
