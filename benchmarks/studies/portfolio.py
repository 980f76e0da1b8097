"""`auto` beside the solvers that it is made of, on problems of many kinds.

    python -m benchmarks portfolio --problems planar:2000,resnet18.conv1.npz

Problems are generated (CLASS:SIZE; see `benchmarks.harness.generated`), QUBO files, or
saved rounding problems. Every solver gets the same seconds, seeds and one thread;
kernels are compiled before the clock starts, and annealing and tabu search have no
limit of their own. The table has each solver's mean gap to the lowest energy of all
runs on the problem, in percent of that energy, summed over rows; and, in the lines of
`auto`, the difference to the part with the lowest mean, with a 95 % interval (Welch's
t): it is no worse beyond noise where the interval does not lie above 0.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import scipy.stats
from tqdm import tqdm

from benchmarks.harness.generated import generate
from benchmarks.harness.problems import load_problem
from benchmarks.harness.store import open_store
from benchmarks.harness.tables import columns
from benchmarks.harness.trials import Trials
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from solvers import InputError, QuboBatch, Solver, label
from solvers import read_qubo as read
from solvers.composed.auto import ENDLESS, Auto
from solvers.qubo import Float
from solvers.registry import parse_solver

PROBLEMS = (
    "random:2000,signed:2000,torus:2000,planar:2000,random:800,planar:800,"
    "dense:500,dense:1000,dense:2500,wishart:128,wishart:512,wishart:1152"
)
PARTS = ("lattice", f"sa[num_sweeps={ENDLESS}]", f"tabu[num_sweeps={ENDLESS}]")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problems", default=PROBLEMS)
    add(parser, "budgets", default="1,10")
    add(parser, "seeds", default=10)
    add(parser, "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print a table for each problem; return the exit code."""
    solvers = [parse_solver(text) for text in ("auto", *PARTS)]
    failed = False
    with open_store(options) as store, open_workers(options) as workers:
        for text in tqdm(options.problems, desc="problems", disable=None):
            trials = Trials(partial(load, text), store, name=text, workers=workers)
            known, found = trials.known, list[Runs]()
            try:
                for runs in measured(trials, solvers, options.seconds, options.seeds):
                    found.append(runs)
            finally:
                if found:
                    heading = f"{text}: {known.rows} rows, n = {known.n}"
                    tqdm.write(f"\n{heading}\n{table(found)}")
            failed |= any(len(runs.energies) < options.seeds for runs in found)
    return int(failed)


def load(text: str) -> QuboBatch:
    """The batch that a text of ``--problems`` names."""
    path = Path(text)
    if ":" in text and not path.exists():
        return generate(text)
    if path.suffix != ".npz":
        return read(path)
    batches = load_problem(path, None, None).to_qubos()
    if len(batches) > 1:
        raise InputError(f"{path} has {len(batches)} matrices; a problem has one here")
    return batches[0]


@dataclass(frozen=True, eq=False)
class Runs:
    """The energies that a solver reaches in so many seconds, of runs that have one."""

    solver: Solver
    seconds: float
    energies: Float


def measured(
    trials: Trials, solvers: Sequence[Solver], seconds: Sequence[float], seeds: int
) -> Iterator[Runs]:
    """All runs on a problem, of solvers that support it, as they are finished."""
    able = [solver for solver in solvers if trials.refusal(solver) is None]
    plan = list(itertools.product(seconds, able))
    for limit, solver in tqdm(plan, desc=trials.known.name, leave=False, disable=None):
        done = [trials.run(solver, seed, seconds=limit) for seed in range(seeds)]
        energies = [trial.run.objective for trial in done]
        yield Runs(solver, limit, np.array([E for E in energies if np.isfinite(E)]))


def table(found: Sequence[Runs]) -> str:
    """A line for each solver and limit."""
    heading = ["solver", "s", "mean gap %", "deviation", "auto - best part", "95 %"]
    found = [runs for runs in found if len(runs.energies)]
    lowest = min((runs.energies.min() for runs in found), default=0.0)
    unit = max(abs(lowest), 1e-300) / 100
    lines = [heading]
    for limit, group in itertools.groupby(found, lambda runs: runs.seconds):
        members = list(group)
        parts = [runs for runs in members if not isinstance(runs.solver, Auto)]
        best = min(parts, key=lambda runs: runs.energies.mean(), default=None)
        for runs in members:
            gaps = (runs.energies - lowest) / unit
            mean, deviation = gaps.mean(), gaps.std(ddof=min(1, len(gaps) - 1))
            line = [label(runs.solver), f"{limit:g}", f"{mean:.4f}", f"{deviation:.4f}"]
            if best is not None and isinstance(runs.solver, Auto):
                line += _difference(runs, best, unit)
            lines.append(line + [""] * (len(heading) - len(line)))
    return columns(lines)


def _difference(own: Runs, other: Runs, unit: float) -> list[str]:
    """The difference of two means in the given unit, and its 95 % interval."""
    text = f"{(own.energies.mean() - other.energies.mean()) / unit:+.4f}"
    if len(own.energies) < 2 or np.ptp(own.energies) == np.ptp(other.energies) == 0:
        return [text, "-"]
    with warnings.catch_warnings():
        # Energies that are all the same are no loss of precision.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = scipy.stats.ttest_ind(own.energies, other.energies, equal_var=False)
    low, high = (end / unit for end in test.confidence_interval(0.95))
    return [text, f"[{low:+.4f}, {high:+.4f}]"]
