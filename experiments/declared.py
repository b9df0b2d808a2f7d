"""Checks that the hypotheses of the embedded world were declared before the runs that confirm them.

python experiments/declared.py                 every finished run of a declared arm and seed under runs/
python experiments/declared.py --runs DIR      elsewhere
python experiments/declared.py --freeze        prints `frozen` for the declaration, from the configs as they are now

A run counts where its code (versions.json) is a whole commit that has the last change of the declaration, with the
settings it freezes, among its ancestors; where its seed, world, settings and backbone are the declared ones; and where
the configs still compose to what is frozen. Exits 1 when something is not so, or when the declaration is not committed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from instructblip import cli
from instructblip.evaluation.declaration import DECLARED, WORLD, Declaration, load, meant, misfits, settings_hash
from instructblip.evaluation.tables.results import Result, results
from instructblip.files import read_json
from instructblip.miniature import sources
from instructblip.recipes import fingerprint

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--freeze", action="store_true")
    chosen = parser.parse_args()
    declared = load()
    if chosen.freeze:
        print(OmegaConf.to_yaml({"frozen": frozen_now(declared)}), end="")
        return
    wrong = [*drift(declared), *late(declared, results([], chosen.runs), DECLARED)]
    print("\n".join(wrong) or "declared and frozen before every confirming run")
    sys.exit(1 if wrong else 0)


def frozen_now(declared: Declaration) -> dict[str, str]:
    """Arm -> hash of the settings it composes to, and the hash of the world's sizes."""
    stamp = {"world": sources.WORLD, "sizes": asdict(sources.DEFAULT)}
    hashes = {name: settings_hash(composed(arm.experiment)) for name, arm in declared.arms.items()}
    return hashes | {WORLD: fingerprint(json.loads(json.dumps(stamp)))}


def composed(experiment: Sequence[str]) -> dict[str, Any]:
    """A config as a run directory has it."""
    config = cli.composed("train", f"experiment=[{','.join(experiment)}]")
    written = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(config)))
    facts = OmegaConf.to_container(written, resolve=True)
    assert isinstance(facts, dict)
    return {str(key): value for key, value in facts.items()}


def drift(declared: Declaration) -> list[str]:
    """What composes to other settings than are frozen."""
    if not declared.frozen:
        return ["the settings are not frozen yet: --freeze prints them"]
    now = frozen_now(declared)
    return [
        f"{name}: frozen as {old}, composes to {now[name]}" for name, old in declared.frozen.items() if now[name] != old
    ]


def late(declared: Declaration, found: Sequence[Result], path: Path) -> list[str]:
    """Runs that do not confirm anything, and why."""
    repository = path.parent
    if git(repository, "status", "--porcelain", "--", str(path)):
        return [f"{path.name} is not committed as it stands"]
    last = git(repository, "log", "-1", "--format=%H", "--", str(path))
    wrong = []
    for arm, run in meant(declared, found):
        reasons = [*misfits(declared, arm, run), *before(repository, last, run)]
        wrong += [f"{run.name} ({arm}): {reason}" for reason in reasons]
    return wrong


def before(repository: Path, declaration: str, run: Result) -> list[str]:
    """Whether the run's code came after the declaration, by the order of commits."""
    path = run.folder / "versions.json"
    code = str(read_json(path).get("code", "unknown")) if path.is_file() else "unknown"
    if code == "unknown":
        return ["its code is no known commit"]
    if code.endswith("-dirty"):
        return [f"its code was changed since commit {code.removesuffix('-dirty')}"]
    command = ["git", "-C", str(repository), "merge-base", "--is-ancestor", declaration, code]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return []
    why = (
        done.stderr.strip() or f"commit {code} does not have the declaration's last change {declaration[:12]} before it"
    )
    return [why]


def git(repository: Path, *arguments: str) -> str:
    """Raises ValueError outside a repository."""
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
