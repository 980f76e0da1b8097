"""What it costs to make each run in a process of its own.

    python -m benchmarks isolation --solver nearest,sa,lattice

Each solver runs with each limit several times, in this process and in processes of
their own, on rows of synthetic correlated inputs or on a saved problem. The columns are
the median milliseconds that a run takes beyond the seconds that the solver counts, here
and in a process; the difference, and its share of the whole; the seconds, once for each
solver and problem, until runs can be forked; and, for a limit in sweeps, whether the
answers are the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from benchmarks.harness.failures import SolverFailure, contained, report
from benchmarks.harness.problems import synthetic
from benchmarks.harness.race import compile_for, solve
from benchmarks.harness.tables import columns
from benchmarks.harness.worker import Outcome, Workers
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, QuboBatch, Solution, Solver, label, parse_solvers

# The shape of ResNet18's first layer.
ROWS, VARIABLES = 64, 147
SWEEPS = 5


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "solver", default="nearest,sa,lattice,adaround")
    add(parser, "problem", note="synthetic")
    add(parser, "budgets", default="1")
    add(parser, "repeats", default=5)
    add(parser, "threads")


def run(options: argparse.Namespace) -> int:
    """Print a line for each solver and limit; return the exit code."""
    if options.problem is None:
        qubos = [synthetic(VARIABLES, ROWS)]
    else:
        qubos = RoundingProblem.load(options.problem).to_qubos()
    threads = options.threads
    budgets = [Budget(sweeps=SWEEPS, threads=threads)]
    budgets += [Budget(seconds=s, threads=threads) for s in options.seconds]
    heading = ["solver", "limit", "here ms", "process ms", "extra ms", "share %"]
    lines, failed = [[*heading, "ready s", "same"]], False
    with Workers() as workers:
        for solver in tqdm(parse_solvers(options.solver), desc="solvers", disable=None):
            try:
                with contained(solver):
                    compile_for(solver, qubos[0])
                    for budget in budgets:
                        lines.append(
                            measured(workers, solver, qubos, budget, options.repeats)
                        )
            except SolverFailure as failure:
                report(failure)
                failed = True
    print(columns(lines))
    return int(failed)


def measured(
    workers: Workers,
    solver: Solver,
    qubos: Sequence[QuboBatch],
    budget: Budget,
    repeats: int,
) -> list[str]:
    """The line of a solver with a budget."""

    def isolated(seed: int) -> Outcome:
        return workers.run(qubos, solver, seed=seed, budget=budget)

    def here(seed: int) -> list[Solution]:
        return solve(solver, qubos, seed, budget)

    ready = isolated(0).compiling
    beyond: dict[Callable[..., object], list[float]] = {here: [], isolated: []}
    wholes, same = [], True
    for seed in range(repeats):
        begun = time.perf_counter()
        solutions = here(seed)
        whole = time.perf_counter() - begun
        beyond[here].append(whole - sum(s.seconds for s in solutions))
        begun = time.perf_counter()
        outcome = isolated(seed)
        wholes.append(time.perf_counter() - begun)
        beyond[isolated].append(wholes[-1] - outcome.seconds)
        same &= len(solutions) == len(outcome.solutions) and all(
            np.array_equal(own.states, other.states)
            for own, other in zip(solutions, outcome.solutions, strict=True)
        )
    before, after = (1000 * statistics.median(s) for s in beyond.values())
    share = (after - before) / (10 * statistics.median(wholes))
    limit = f"{budget.sweeps} sweeps" if budget.sweeps else f"{budget.seconds:g} s"
    figures = [f"{x:.1f}" for x in (before, after, after - before, share)]
    answers = ("yes" if same else "no") if budget.sweeps else "-"
    return [label(solver), limit, *figures, f"{ready:.2f}", answers]
