"""The house: floors, budgets, nothing private, nothing that breaks beside a CPU build of torch."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = sorted((ROOT / "instructblip").rglob("*.py"))
PROGRAMS = sorted(ROOT.glob("*.py"))
assert len(PACKAGE) > 30 and len(PROGRAMS) >= 4
ROOMS = {  # module: floor and column; an import points down, or stays in its column
    "instructblip.names": (0, "facts"), "instructblip.files": (0, "facts"), "instructblip.recipes": (0, "facts"),
    "instructblip.config": (0, "facts"), "instructblip.choices": (0, "facts"), "instructblip.protocols": (0, "facts"),
    "instructblip.pools": (0, "facts"), "instructblip.revision": (0, "facts"), "instructblip.multitask": (0, "facts"),
    "instructblip.data.sample": (0, "facts"),
    "instructblip.data": (1, "data"), "instructblip.models": (1, "models"),
    "instructblip.evaluation.metrics": (1, "metrics"), "instructblip.evaluation.answers": (1, "metrics"),
    "instructblip.evaluation.predictions": (1, "metrics"), "instructblip.evaluation.measures": (1, "metrics"),
    "instructblip.evaluation.captions": (1, "metrics"), "instructblip.evaluation.statistics": (1, "metrics"),
    "instructblip.evaluation.reweighting": (1, "metrics"), "instructblip.evaluation.answering": (2, "answering"),
    "instructblip.evaluation.features": (2, "answering"), "instructblip.evaluation.questions": (2, "answering"),
    "instructblip.data.readers": (2, "readers"), "instructblip.data.leakage": (2, "leakage"),
    "instructblip.data.preparing": (3, "preparing"), "instructblip.miniature": (3, "miniature"),
    "instructblip.training": (4, "training"), "instructblip.evaluation": (5, "evaluation"),
    "instructblip.inference": (5, "inference"), "instructblip.lmms_eval": (5, "inference"), "instructblip.evaluation.qualitative": (6, "qualitative"),
    "instructblip.evaluation.lens": (6, "lens"), "instructblip.demo": (6, "demo"),
    "instructblip.miniature.backbone": (6, "programs"), "instructblip.miniature.gate": (6, "programs"),
    "instructblip.cli": (6, "programs"), "instructblip.sweep": (6, "programs"),
}  # fmt: skip
HEAVY = {"torch", "lightning", "transformers", "datasets", "hydra", "webdataset", "pyarrow", "numpy"}
MAY_IMPORT = {
    "transformers": r"instructblip/models/", "webdataset": r"instructblip/data/shards\.py",
    "lightning": r"instructblip/training/|^train\.py", "hydra": r"instructblip/cli\.py", "gradio": r"instructblip/demo/(page|serving)\.py",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Modules a file imports while it is imported itself or runs, those for type checking left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            package = (ROOT / node.module.replace(".", "/")).is_dir()
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | (set() if package else {node.module})
    return found


def room(module: str) -> str | None:
    """The longest known room a module lies in."""
    names = [name for name in ROOMS if module == name or module.startswith(f"{name}.")]
    return max(names, key=len, default=None)


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = room(module)
    if own is None:
        assert not path.read_text().strip()
        return
    floor, column = ROOMS[own]
    for target in filter(None, map(room, imports(path))):
        below, its_column = ROOMS[target]
        assert its_column == column or below < floor, f"{module} on floor {floor} imports {target} on floor {below}"


@pytest.mark.parametrize("path", [*PACKAGE, *PROGRAMS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    name, used = path.relative_to(ROOT).as_posix(), {module.split(".")[0] for module in imports(path)}
    for library, rooms in MAY_IMPORT.items():
        assert library not in used or re.search(rooms, name), f"{name} imports {library}"
    own = room(name.removesuffix(".py").replace("/", "."))
    if own and ROOMS[own][0] == 0:
        assert not used & HEAVY, f"{name} on the bottom floor imports {used & HEAVY}"
    if own and ROOMS[own][1] == "metrics":
        assert "torch" not in used


@pytest.mark.parametrize("path", [*PACKAGE, *PROGRAMS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_budgets(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= (80 if path in PROGRAMS else 300), f"{path.name} has {len(lines)} lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}:{node.name} is longer than 60 lines"
    if path.name == "__init__.py":
        assert not lines
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


def test_nothing_private_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if (
            path.is_file()
            and path.suffix in {".py", ".yaml", ".md", ".toml", ".txt", ".json", ""}
            and name != "tests/test_repository.py"
        ):
            text = path.read_text(encoding="utf-8", errors="ignore")
            found += [
                f"{name}: {match}"
                for match in re.findall(r"(?<![\w.$}])/(?:work|home|root|mnt|export|Users)/\w+", text)
            ]
            assert path.stat().st_size < 250_000, f"{name} is too large to be committed"
    assert not found


def test_no_requirement_brings_torchvision_or_timm() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    pinned = (ROOT / "constraints.txt").read_text()
    for name in ("torchvision", "timm"):
        assert not any(item.startswith(name) for item in wanted) and not re.search(rf"^{name}==", pinned, re.M)
    assert re.search(r"^torch==2\.13\.0$", pinned, re.M)
    for item in wanted:
        name = re.split(r"[><=\[]", item)[0].replace("-", "[-_]")
        assert re.search(rf"^{name}==", pinned, re.M | re.I), f"{name} has no tested version in constraints.txt"
