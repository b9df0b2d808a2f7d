"""Makes what the miniature has in place of published weights.

    python -m instructblip.miniature.backbone --seed 0

A world of its own tells the language models, another one shows the vision encoder and the Q-Former; the ordinary
programs prepare both and train on them. What is finished is kept, a file among the weights too, so the same command
goes on where it was stopped, and another family is made over the parts that are there. Delete a file to make it again.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from instructblip.files import read_json
from instructblip.miniature import corpus, sources
from instructblip.miniature.albums import Sizes
from instructblip.miniature.corpus import ALIGNMENT, COURSES, Course, Row
from instructblip.miniature.gate import FAMILIES, ITEMS, judged
from instructblip.miniature.scenes import SIDE, Role
from instructblip.miniature.world import World, write_lines
from instructblip.models.weights import BASE, read

ROOT = Path(__file__).resolve().parents[2]
RECIPES = "instructblip/miniature/recipes"
POINTS = 40  # of a loss curve
HELD_BACK = 0.03  # of the rows, whose loss and answers say how good a part is
OWN = {"llama": (), "t5": ("miniature/backbone_t5",)}  # what a family learns with besides `miniature/backbone`
STEPS = {"vision": 1000, "stage1": 3000, "stage2_llama": 2000, "stage2_t5": 1000}  # of what is trained on pictures
SMALLEST = 8  # of rows or steps, whatever the share
WORLD = 8000  # plus the backbone's seed: no other world is rendered with these


@dataclass(frozen=True)
class Workshop:
    """Where one backbone is made, and where its files go."""

    seed: int
    folder: Path
    weights: Path
    share: float = 1.0  # of all rows, pictures and steps
    families: tuple[str, ...] = tuple(FAMILIES)

    def raw(self, role: Role) -> Path:
        return self.folder / role.name / "raw"

    def data(self, role: Role) -> Path:
        return self.folder / role.name / "prepared"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def alignment(self) -> World:
        given = {name: max(1, round(self.share * number)) for name, number in ALIGNMENT.given.items()}
        return World(WORLD + self.seed, Sizes(ALIGNMENT.scale * self.share, given), Role.alignment)

    def part(self, number: float) -> int:
        return max(SMALLEST, round(self.share * number))

    @property
    def card(self) -> Path:
        return self.weights / "card.json"

    def file(self, name: str) -> Path:
        return self.weights / f"{name}.safetensors"


def make(shop: Workshop) -> None:
    """All parts, one after the other: each is trained over the files of those before."""
    untaught = [family for family in shop.families if not shop.file(family).is_file()]
    if untaught:
        tell(shop, untaught)
    for family in untaught:
        teach(shop, family)
    unmade = [part for part in parts(shop.families) if not shop.file(part).is_file()]
    if unmade:
        show(shop)
    for part in unmade:
        align(shop, part)
    write_card(shop)


def parts(families: Sequence[str]) -> list[str]:
    """What is trained on pictures, in order, by the name of its file."""
    return ["vision", "stage1", *(f"stage2_{family}" for family in families)]


def tell(shop: Workshop, families: Sequence[str]) -> None:
    """Scenes in words, and what is asked of them in the courses of these families."""
    for recipe, course in {each: course for family in families for each, course in taught(family).items()}.items():
        folder = shop.raw(Role.language) / recipe
        if not (folder / "val.jsonl").is_file():
            write_texts(folder, recipe, shop.part(course.rows), shop.seed)
        program("prepare", *_paths(shop, Role.language), f"recipe={RECIPES}/{recipe}.yaml", "splits=[train,val]")


def taught(family: str) -> dict[str, Course]:
    """The courses of a family, in order, by recipe."""
    return {recipe: course for recipe, course in COURSES.items() if course.steps_of(family)}


def course_run(recipe: str, family: str) -> str:
    """The name of the run of a course."""
    return f"{recipe.removeprefix('scene_')}-{family}"


def teach(shop: Workshop, family: str) -> None:
    """A language model, one course over the weights of the one before."""
    before, courses = "null", taught(family)
    for recipe, course in courses.items():
        run = course_run(recipe, family)
        after = shop.file(family) if recipe == list(courses)[-1] else shop.folder / f"{run}.safetensors"
        settings = [f"model.llm.weights={before}", f"mixture.recipes=[{RECIPES}/{recipe}.yaml]"]
        settings += [f"batch_size={course.batch}", f"group_size={course.batch}", f"optim.min_lr={course.min_lr}"]
        for steps in sorted({shop.part(course.steps_of(family) * quarters / 4) for quarters in range(4, 9)}):
            train(shop, run, Role.language, OWN[family], [*settings, f"steps={steps}", "allow_change=[steps]"])
            if points(shop.runs / run / "metrics.csv")[-1][1] <= course.enough:
                break
        ship(shop, run, after, "llm")
        before = str(after)


def show(shop: Workshop) -> None:
    """The alignment world: captions, and pictures of every style with all that they show."""
    raw, world = shop.raw(Role.alignment), shop.alignment
    if not (raw / "scene_pictures" / "val.jsonl").is_file():
        sources.write(raw, world.seed, world.sizes, world.only)
        write_pictures(raw, world)
    paths = _paths(shop, Role.alignment)
    program("prepare", *paths, "recipe=[coco_caption,web_capfilt]", "check_counts=false")
    pictures = [f"recipe={RECIPES}/scene_pictures.yaml", f"+paths.media.scene_pictures={raw}"]
    program("prepare", *paths, *pictures, "splits=[train,val]")


def align(shop: Workshop, part: str) -> None:
    """The vision encoder, and what BLIP-2 learns over it: a first stage, and a second for each language model."""
    if part == "vision":
        experiments, given = ["align/stage1", "miniature/vision"], []
    else:
        experiments = [f"align/{part.partition('_')[0]}", "align/miniature"]
        given = [f"model.vision.weights={shop.file('vision')}", "model.unfreeze=[]", "loss.reduction=group"]
    if part.startswith("stage2"):
        given += _over_first_stage(shop, part.removeprefix("stage2_"))
    train(shop, part, Role.alignment, experiments, [*given, f"steps={shop.part(STEPS[part])}"])
    ship(shop, part, shop.file(part), "vision" if part == "vision" else None)


def _over_first_stage(shop: Workshop, family: str) -> list[str]:
    """The captions go through the frozen language model."""
    weights = [f"model.llm.weights={shop.file(family)}", f"model.init={shop.file('stage1')}"]
    return [f"model={FAMILIES[family]}", *weights, "objective=instruct"]


def train(shop: Workshop, name: str, role: Role, experiments: Sequence[str], overrides: Sequence[str]) -> None:
    experiment = f"experiment=[{','.join(['miniature/backbone', *experiments])}]"
    settings = [f"seed={shop.seed}", f"name={name}", "resume=auto", f"paths.runs={shop.runs}"]
    program("train", experiment, *_paths(shop, role), *settings, *overrides)


def program(name: str, *arguments: str) -> None:
    """Raises CalledProcessError with its exit code when the program fails; it has said why."""
    subprocess.run([sys.executable, f"{name}.py", *arguments], cwd=ROOT, check=True)


def ship(shop: Workshop, run: str, file: Path, part: str | None = None) -> None:
    """A run's last weights as bf16: those of a backbone under its own names, or all between the backbones."""
    path = sorted((shop.runs / run / "checkpoints").glob("*/model.safetensors"))[-1]
    found = read(str(path))
    tensors = found.of(part) if part else found.between()
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {} if part else {BASE: str(found.base)}
    save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, file, metadata=metadata)


def write_card(shop: Workshop) -> None:
    """Beside the weights: what made them, how the loss fell, and what they are good for."""
    families = [family for family in FAMILIES if shop.file(family).is_file()]  # of an earlier call too
    names = [course_run(recipe, family) for family in families for recipe in taught(family)] + parts(families)
    before = read_json(shop.card)["losses"] if shop.card.is_file() else {}
    files = {name: shop.runs / name / "metrics.csv" for name in names}
    curves = before | {name: curve(file) for name, file in files.items() if file.is_file()}
    command = f"python -m instructblip.miniature.backbone --seed {shop.seed} --families {' '.join(families)}".rstrip()
    facts = {"command": command, "seed": shop.seed, "share": shop.share, "losses": curves}
    facts |= judged(shop.weights, families, shop.part(ITEMS))
    shop.card.write_text(json.dumps(facts) + "\n", encoding="utf-8")


def curve(metrics: Path) -> list[tuple[int, float]]:
    """The loss of a run, at most POINTS of it."""
    found = points(metrics)
    return found[:: max(1, len(found) // POINTS)]


def points(metrics: Path) -> list[tuple[int, float]]:
    """Steps and training losses, each the mean since the one before."""
    with metrics.open(encoding="utf-8") as lines:
        return [(int(row["step"]), round(float(row["train/loss"]), 4)) for row in csv.DictReader(lines)]


def write_texts(folder: Path, recipe: str, number: int, seed: int) -> None:
    """Rows about as many scenes, and the blank picture they all have."""
    rows = list(corpus.texts(recipe, number, seed))
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), "white").save(folder / corpus.BLANK)
    _write(folder, rows)


def write_pictures(raw: Path, world: World) -> None:
    """`raw/scene_pictures`: rows about the pictures of the world in `raw`, named from there."""
    rows = list(corpus.pictures(world))
    random.Random(f"{world.seed}/order").shuffle(rows)
    _write(raw / "scene_pictures", rows)


def _write(folder: Path, rows: Sequence[Row]) -> None:
    held = round(HELD_BACK * len(rows))
    write_lines(folder / "train.jsonl", rows[held:])
    write_lines(folder / "val.jsonl", rows[:held])  # last: that it is there says that all is


def _paths(shop: Workshop, role: Role) -> list[str]:
    return ["paths=miniature", f"paths.raw={shop.raw(role)}", f"paths.data={shop.data(role)}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of worlds, streams and first weights")
    parser.add_argument("--folder", type=Path, help="where it is made; data/miniature/backbone-SEED")
    parser.add_argument("--weights", type=Path, help="where its files go; FOLDER/weights")
    parser.add_argument("--share", type=float, default=1.0, help="of rows, pictures and steps, to see that it runs")
    parser.add_argument("--families", nargs="*", choices=list(FAMILIES), default=list(FAMILIES), metavar="NAME")
    given = parser.parse_args()
    folder = (given.folder or ROOT / "data" / "miniature" / f"backbone-{given.seed}").resolve()
    shop = Workshop(
        given.seed, folder, (given.weights or folder / "weights").resolve(), given.share, tuple(given.families)
    )
    make(shop)
    lacking = read_json(shop.card)["lacking"]
    verdict = f"too little of {', '.join(lacking)}" if lacking else "accepted"
    print(f"{shop.weights}: {verdict}")


if __name__ == "__main__":
    main()
