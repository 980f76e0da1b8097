"""How long the first solve of a fresh process takes, and what of it is compiling.

    python -m benchmarks first-solve --solver tabu,lattice

Each solver runs in a process of its own with an empty cache of kernels (cold), then in
another one with the cache that the first has left (warm), on rows of synthetic
correlated inputs or of a problem's first batch. There are few sweeps, but enough to
compile all that a longer search would; `exact` gets the first variables of a few rows.
Seconds are those of the processor (cpu), all threads together, and of the clock (wall);
importing numba is not included, and has a column of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness.failures import (
    SolverFailure,
    contained,
    report,
    require_support,
)
from benchmarks.harness.problems import synthetic
from benchmarks.harness.tables import columns
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, QuboBatch, label, parse_solver, parse_solvers
from solvers.registry import BUILT_IN

# The shape of ResNet18's first layer, and what `exact` is given of it.
ROWS, VARIABLES = 64, 147
EXACT_ROWS, EXACT_VARIABLES = 4, 40
SWEEPS = 200
CHILD = (
    "import sys; from benchmarks.studies import first_solve; "
    "first_solve.child(sys.argv[1])"
)

Seconds = dict[str, float]


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "solver", default=",".join(BUILT_IN), note="all built-in ones")
    add(parser, "problem", note="synthetic")
    add(parser, "threads")


def run(options: argparse.Namespace) -> int:
    """Print a line for each solver; return the exit code."""
    solvers, qubo = parse_solvers(options.solver), _qubo(options.problem)
    for solver in solvers:
        require_support(solver, qubo)
    results: dict[str, tuple[Seconds, Seconds] | None] = {}
    for text in tqdm([*map(label, solvers)], desc="solvers", disable=None):
        with tempfile.TemporaryDirectory() as cache:
            task = json.dumps(
                [text, options.problem and str(options.problem), options.threads]
            )
            try:
                results[text] = fresh(task, Path(cache)), fresh(task, Path(cache))
            except SolverFailure as failure:
                report(failure)
                results[text] = None
    print(table(results))
    return int(None in results.values())


def fresh(task: str, cache: Path) -> Seconds:
    """The seconds that `child` reports of the task from a process of its own.

    Raises
    ------
    SolverFailure
        The process failed; the message is the last line of its output.
    """
    done = subprocess.run(
        [sys.executable, "-c", CHILD, task],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        # A solver that kills its process says nothing.
        silent = f"solver {json.loads(task)[0]}: exit code {done.returncode}"
        raise SolverFailure(said[-1] if said else silent)
    seconds: Seconds = json.loads(done.stdout.splitlines()[-1])
    return seconds


def child(task: str) -> None:
    """Solve once; print a line of JSON with the seconds of the import and the solve."""
    text, problem, threads = json.loads(task)
    begun = time.perf_counter()
    import numba  # noqa: F401

    importing = time.perf_counter() - begun
    qubo = _qubo(problem)
    solver = parse_solver(text)
    if solver.name == "exact":
        n = min(qubo.n, EXACT_VARIABLES)
        qubo = QuboBatch(
            H=qubo.H[:n, :n],
            linear=qubo.linear[:EXACT_ROWS, :n],
            offset=qubo.offset[:EXACT_ROWS],
            scale=qubo.scale[:EXACT_ROWS, :n],
            prior=qubo.prior[:EXACT_ROWS, :n],
        )
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        with contained(solver):
            solver.solve(qubo, budget=Budget(sweeps=SWEEPS, threads=threads))
    except SolverFailure as failure:
        sys.exit(str(failure))
    seconds = {
        "import": importing,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
    }
    print(json.dumps(seconds))


def _qubo(problem: Path | str | None) -> QuboBatch:
    """The first batch of a saved problem, or a synthetic batch."""
    if problem is not None:
        return RoundingProblem.load(Path(problem)).to_qubos()[0]
    return synthetic(VARIABLES, ROWS)


def table(results: Mapping[str, tuple[Seconds, Seconds] | None]) -> str:
    """A line for each solver, from its cold and its warm seconds; dashes of none."""
    heading = ["solver", "cold cpu s", "cold wall s", "warm cpu s", "warm wall s"]
    lines = [[*heading, "import s"]]
    for text, measured in results.items():
        if measured is None:
            lines.append([text, *["-"] * (len(lines[0]) - 1)])
            continue
        cold, warm = measured
        seconds = [cold["cpu"], cold["wall"], warm["cpu"], warm["wall"]]
        lines.append([text, *(f"{x:.2f}" for x in [*seconds, warm["import"]])])
    return columns(lines)
