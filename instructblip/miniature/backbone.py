"""Makes what the miniature has in place of published weights.

    python -m instructblip.miniature.backbone --seed 0

A world of its own tells the language models, another one shows the vision encoder and the Q-Former; the ordinary
programs prepare both and train on them. What is finished is kept, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from instructblip.miniature import corpus, sources
from instructblip.miniature.albums import Sizes
from instructblip.miniature.corpus import ALIGNMENT, Row
from instructblip.miniature.scenes import SIDE, Role
from instructblip.miniature.world import World, write_lines
from instructblip.models.weights import BASE, read

ROOT = Path(__file__).resolve().parents[2]
RECIPES = "instructblip/miniature/recipes"
FAMILIES = {"llama": "miniature_llama", "t5": "miniature_t5"}  # file name of a language model -> its config
ROWS, DIALOGUES = 80_000, 12_000  # scenes in words
HELD_BACK = 0.03  # of the rows, whose loss and answers say how good a part is
STEPS = {  # of each part
    "language-llama": 4000,
    "language-t5": 4000,
    "vision": 2000,
    "stage1": 1500,
    "stage2-llama": 1500,
    "stage2-t5": 1500,
}
SMALLEST = 8  # of rows or steps, whatever the share
WORLD = 8000  # plus the backbone's seed: no other world is rendered with these


@dataclass(frozen=True)
class Workshop:
    """Where one backbone is made, and where its files go."""

    seed: int
    folder: Path
    weights: Path
    share: float = 1.0  # of all rows, pictures and steps

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

    def part(self, number: int) -> int:
        return max(SMALLEST, round(self.share * number))

    def file(self, name: str) -> Path:
        return self.weights / f"{name}.safetensors"


def make(shop: Workshop) -> None:
    """All parts, one after the other: each is trained over the files of those before."""
    tell(shop)
    show(shop)
    for name, model in FAMILIES.items():
        train(shop, f"language-{name}", Role.language, [], [f"model={model}"])
        ship(shop, f"language-{name}", name, "llm")
    train(shop, "vision", Role.alignment, ["align/stage1", "miniature/vision"], [])
    ship(shop, "vision", "vision", "vision")
    seen = [f"model.vision.weights={shop.file('vision')}", "model.unfreeze=[]", "loss.reduction=group"]
    train(shop, "stage1", Role.alignment, ["align/stage1", "align/miniature"], seen)
    ship(shop, "stage1", "stage1")
    for name, model in FAMILIES.items():
        given = [f"model={model}", f"model.llm.weights={shop.file(name)}", f"model.init={shop.file('stage1')}"]
        given += ["objective=instruct"]  # the captions through the frozen language model
        train(shop, f"stage2-{name}", Role.alignment, ["align/stage2", "align/miniature"], seen + given)
        ship(shop, f"stage2-{name}", f"stage2_{name}")


def tell(shop: Workshop) -> None:
    """Scenes in words, and all that is asked of them."""
    raw = shop.raw(Role.language)
    if (raw / "scene_text" / "val.jsonl").is_file():
        return
    write_texts(raw / "scene_dialogues", corpus.dialogues, shop.part(DIALOGUES), shop.seed)
    write_texts(raw / "scene_text", corpus.texts, shop.part(ROWS), shop.seed)
    for name in ("scene_text", "scene_dialogues"):
        program("prepare", *_paths(shop, Role.language), f"recipe={RECIPES}/{name}.yaml", "splits=[train,val]")


def show(shop: Workshop) -> None:
    """The alignment world: captions, and pictures of every style with all that they show."""
    raw = shop.raw(Role.alignment)
    if (raw / "scene_pictures" / "val.jsonl").is_file():
        return
    world = shop.alignment
    sources.write(raw, world.seed, world.sizes, world.only)
    write_pictures(raw, world)
    paths = _paths(shop, Role.alignment)
    program("prepare", *paths, "recipe=[coco_caption,web_capfilt]", "check_counts=false")
    pictures = [f"recipe={RECIPES}/scene_pictures.yaml", f"+paths.media.scene_pictures={raw}"]
    program("prepare", *paths, *pictures, "splits=[train,val]")


def train(shop: Workshop, name: str, role: Role, experiments: Sequence[str], overrides: Sequence[str]) -> None:
    experiment = f"experiment=[{','.join(['miniature/backbone', *experiments])}]"
    settings = [f"seed={shop.seed}", f"name={name}", "resume=auto", f"paths.runs={shop.runs}", *overrides]
    program("train", experiment, *_paths(shop, role), *settings, f"steps={shop.part(STEPS[name])}")


def program(name: str, *arguments: str) -> None:
    """Raises CalledProcessError with its exit code when the program fails; it has said why."""
    subprocess.run([sys.executable, f"{name}.py", *arguments], cwd=ROOT, check=True)


def ship(shop: Workshop, run: str, name: str, part: str | None = None) -> None:
    """A run's last weights as bf16: those of a backbone under its own names, or all between the backbones."""
    path = sorted((shop.runs / run / "checkpoints").glob("*/model.safetensors"))[-1]
    found = read(str(path))
    tensors = found.of(part) if part else found.between()
    shop.weights.mkdir(parents=True, exist_ok=True)
    metadata = {} if part else {BASE: str(found.base)}
    save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, shop.file(name), metadata=metadata)


def write_texts(folder: Path, say: Callable[[int, int], Iterator[Row]], number: int, seed: int) -> None:
    """Rows about as many scenes, and the blank picture they all have."""
    rows = list(say(number, seed))
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), "white").save(folder / corpus.BLANK)
    held = round(HELD_BACK * len(rows))
    _write(folder, rows[held:], rows[:held])


def write_pictures(raw: Path, world: World) -> None:
    """`raw/scene_pictures`: rows about the pictures of the world in `raw`, named from there."""
    rows = list(corpus.pictures(world))
    random.Random(f"{world.seed}/order").shuffle(rows)
    held = round(HELD_BACK * len(rows))
    _write(raw / "scene_pictures", rows[held:], rows[:held])


def _write(folder: Path, train: Sequence[Row], val: Sequence[Row]) -> None:
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "val.jsonl", val)  # last: that it is there says that all is


def _paths(shop: Workshop, role: Role) -> list[str]:
    return ["paths=miniature", f"paths.raw={shop.raw(role)}", f"paths.data={shop.data(role)}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of worlds, streams and first weights")
    parser.add_argument("--folder", type=Path, help="where it is made; data/miniature/backbone-SEED")
    parser.add_argument("--weights", type=Path, help="where its files go; FOLDER/weights")
    parser.add_argument("--share", type=float, default=1.0, help="of rows, pictures and steps, to see that it runs")
    given = parser.parse_args()
    folder = (given.folder or ROOT / "data" / "miniature" / f"backbone-{given.seed}").resolve()
    make(Workshop(given.seed, folder, (given.weights or folder / "weights").resolve(), given.share))


if __name__ == "__main__":
    main()
