"""Trains and scores what the paper's tables take in miniature, and rebuilds the report; goes on with what is missing.

python experiments/miniature_tables.py                              all of it: `make tables`
python experiments/miniature_tables.py --dry                        the commands alone
python experiments/miniature_tables.py --runs DIR --worlds DIR --seeds 200 --train steps=2 --evaluate limit=4
python experiments/miniature_tables.py --tables experiments/miniature_confirmation.yaml    what the hypotheses take

One sweep trains everything, sweeps of evaluate.py score it: every run on the held-out sets and, but for the curve, on
the held-in ones; the instruction-tuned run of each family also its floors and ceiling, which measure the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from instructblip.cli import CONF
from instructblip.evaluation.tables.results import results
from instructblip.evaluation.tables.scaled import BACKBONE, ScaledTables, load

ROOT = CONF.parent
CURVE = "queries_"  # in the names of the experiments that only the curve takes
Named = Callable[[Sequence[str], int], str]  # a run by its experiments and seed, as evaluate.py takes it


@dataclass(frozen=True)
class Plan:
    """Which seeds, where runs and worlds lie, and what every program is told beside."""

    declared: ScaledTables
    seeds: Sequence[int]
    runs: Path
    worlds: Path
    prepare: Sequence[str] = ()
    train: Sequence[str] = ()
    evaluate: Sequence[str] = ()

    def prepared(self) -> Iterator[list[str]]:
        for seed in self.seeds:
            paths = [f"paths.raw={self.worlds}/{seed}/raw", f"paths.data={self.worlds}/{seed}/prepared"]
            yield ["prepare.py", f"miniature={seed}", "recipe=all", "check_counts=false", *paths, *self.prepare]

    def trained(self) -> Iterator[list[str]]:
        """One sweep, and the run directories of what is not trained."""
        where = ["paths=worlds", f"paths.runs={self.runs}", *self.train]
        experiments = list(dict.fromkeys(tuple(experiment) for experiment, _ in self.declared.experiments()))
        swept = ",".join(listed(each) for each in experiments if BACKBONE not in each)
        yield ["train.py", "-m", f"experiment={swept}", f"seed={','.join(map(str, self.seeds))}", *where]
        for each in (each for each in experiments if BACKBONE in each):
            for seed in self.seeds:
                name = f"name={expected(each, seed).split('/')[1]}"
                yield ["train.py", f"experiment={listed(each)}", f"seed={seed}", name, *where[:2]]

    def scored(self, name: Named) -> Iterator[list[str]]:
        fixed = ["missing=true", f"paths.runs={self.runs}", *self.evaluate]
        asked: dict[tuple[str, bool], list[str]] = {}
        for experiment, row in self.declared.experiments():
            curve = any(CURVE in each for each in experiment)
            asked.setdefault((row.prompts, curve), []).extend(name(experiment, seed) for seed in self.seeds)
        for (prompts, curve), runs in asked.items():
            held_in = [] if curve or not self.declared.held_in else [listed(self.declared.held_in)]
            recipes = ",".join(["held_out", *held_in])
            yield ["evaluate.py", "-m", f"run={','.join(runs)}", f"recipe={recipes}", f"prompts={prompts}", *fixed]
        tuned = [[*self.declared.base, *family] for family in self.declared.families.values()]
        measures = f"run={','.join(name(experiment, seed) for experiment in tuned for seed in self.seeds)}"
        yield ["evaluate.py", "-m", measures, "recipe=held_out", "images=deranged,none,told", *fixed]
        yield ["evaluate.py", "-m", measures, "recipe=held_out", "constant=true", *fixed]


def main() -> None:
    plan, dry = told()
    run = print_command if dry else run_command
    for command in [*plan.prepared(), *plan.trained()]:
        run(command, plan)
    for command in plan.scored(expected if dry else found_in(plan.runs)):
        run(command, plan)
    for what in ("table=all", "html=true"):
        run(["report.py", what, f"paths.runs={plan.runs}"], plan)


def told() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"))
    parser.add_argument("--worlds", type=Path, default=Path("data/worlds"))
    parser.add_argument("--tables", type=Path, default=None, help="another file than experiments/miniature_tables.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--dry", action="store_true")
    for program in ("prepare", "train", "evaluate"):
        parser.add_argument(f"--{program}", nargs="+", default=(), metavar="KEY=VALUE")
    given = parser.parse_args()
    declared = load(given.tables) if given.tables else load()
    more = (given.prepare, given.train, given.evaluate)
    return Plan(declared, given.seeds or declared.seeds, given.runs, given.worlds, *more), given.dry


def expected(experiment: Sequence[str], seed: int) -> str:
    """The name a run gets where nothing is overridden."""
    parts = [each.rsplit("/", 1)[-1] if place else each for place, each in enumerate(experiment)]
    return f"{'released/' if BACKBONE in experiment else ''}{'+'.join(parts)}-s{seed}"


def found_in(runs: Path) -> Named:
    """Names of the runs there are."""
    names = {(*run.experiment, run.seed): run.name for run in results([], runs)}
    return lambda experiment, seed: names[(*experiment, seed)]


def listed(names: Sequence[str]) -> str:
    return f"[{','.join(names)}]"


def print_command(command: Sequence[str], plan: Plan) -> None:
    print(" ".join(command))


def run_command(command: Sequence[str], plan: Plan) -> None:
    """Ends the program with the exit code of one that fails; called again it goes on there."""
    print(f"> {' '.join(command)}", flush=True)
    environment = {**os.environ, "INSTRUCTBLIP_WORLDS": str(plan.worlds)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
