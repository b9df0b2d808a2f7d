"""`report.py lens=true run=RUN image=FILE instructions=FILE`: one picture looked at under several instructions."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from instructblip.config.evaluation import ReportConfig
from instructblip.data.processor import open_picture
from instructblip.evaluation.lens import drawing
from instructblip.evaluation.lens.opening import open_model
from instructblip.evaluation.pages.lenses import Facts, Look, save, section
from instructblip.evaluation.pages.page import write
from instructblip.files import read_text, sha256
from instructblip.inference import Assistant
from instructblip.models.loaded import weights_hash
from instructblip.recipes import fingerprint
from instructblip.revision import revision

FEWEST = 2  # instructions: the first two are compared
PNG = "attention.png"


def look_inside(config: ReportConfig, place: Path) -> list[str]:
    """What `lens=true` asks for, and lines that say where it lies.

    Raises ValueError unless image= and instructions= are given.
    """
    options = {name: getattr(config, name) for name in ("image", "instructions")}
    given = sorted(name for name, value in options.items() if value is not None)
    if given == ["image", "instructions"]:
        return [f"Written: {' '.join(map(str, look(config, place)))}"]
    raise ValueError(f"lens=true takes image=FILE and instructions=FILE; it was given {', '.join(given) or 'neither'}")


def look(config: ReportConfig, place: Path) -> list[Path]:
    """Writes the weights, facts and a PNG into the run's folder and a page into `place`; gives page and PNG.

    Raises ValueError, before a model is loaded, for a run, picture or file that is not there or cannot be read, and
    for fewer than two instructions.
    """
    file = Path(str(config.image))
    instructions = read_instructions(Path(str(config.instructions)))
    picture = open_picture(file)
    opened = open_model(config)
    seen = looked(opened.load(), picture, instructions, opened.name, file.name)
    name = f"{file.stem}-{fingerprint([sha256(file), instructions])[:6]}"
    folder = opened.results / "lens" / name
    save(seen, folder)
    drawing.write(seen, folder / PNG)
    page = place / f"lens-{opened.name.replace('/', '-')}-{name}.html"
    title = f"Where {opened.name} looks"
    return [write(page, "lens.html", title=title, look=section(seen), facts=seen.facts), folder / PNG]


def looked(assistant: Assistant, picture: Image.Image, instructions: tuple[str, ...], run: str, name: str) -> Look:
    """Each instruction on its own, so that what another one says cannot change a bit."""
    found = [assistant.attention(picture, each) for each in instructions]
    facts = Facts(
        run, name, instructions, tuple(assistant.answer(picture, each) for each in instructions), found[0].layers,
        found[0].grid, assistant.config.qformer.instruction_aware, weights_hash(assistant.model)[:12], revision(),
    )  # fmt: skip
    return Look(facts, torch.stack([each.weights for each in found]), picture)


def read_instructions(path: Path) -> tuple[str, ...]:
    """One a line, blank lines left out. Raises ValueError for fewer than two, or a file that cannot be read."""
    found = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if len(found) < FEWEST:
        raise ValueError(f"{path} holds {len(found)} instructions; give {FEWEST} or more, one a line, to compare two")
    return found
