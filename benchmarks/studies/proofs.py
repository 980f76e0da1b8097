"""Lower bounds of a rounding problem's rows, and how far exact search proves them.

    python -m benchmarks proofs --problem FILE.npz

The first table has the rows' gaps ``(E - bound) / E`` between the best answer of the
reference solvers and certified lower bounds. The second table has the results of exact
search: on the whole rows with ``--sizes all``, otherwise on the problems that the first
n inputs of each row make, for growing n. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.failures import (
    SolverFailure,
    contained,
    report,
    require_support,
)
from benchmarks.harness.log import digest, open_log, solver_key
from benchmarks.harness.problems import first_rows, headline, load_problem
from benchmarks.harness.race import run_solver
from benchmarks.harness.tables import columns
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, QuboBatch, Solver, parse_solvers
from solvers.proofs import bounds
from solvers.proofs.exact import Exact
from solvers.qubo import Float

BOUNDS: dict[str, Callable[[QuboBatch], Float]] = {
    "diagonal split": bounds.diagonal_split,
    "semidefinite": bounds.semidefinite,
    "semidefinite, 16 variables enumerated": bounds.partial_enumeration,
}
# Errors below this share of the largest error of a row are rounding.
ROUNDING = 1e-9


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problem", required=True)
    add(parser, "saturated")
    add(parser, "rows", default=8, help="use the first N rows, or all of fewer")
    add(parser, "inputs", default="20,30,40,50,60")
    add(parser, "seconds", default=60.0, help="time limit of exact search per row")
    add(parser, "reference", default="kbest[paths=512],tabu")
    add(parser, "log")


def run(options: argparse.Namespace) -> int:
    """Print gaps of bounds, and what exact search proves; return the exit code."""
    problem = load_problem(options.problem, options.saturated, None)
    problem = first_rows(problem, min(options.rows, problem.rows))
    sizes = input_counts(options.sizes, problem.n)
    solvers = parse_solvers(options.reference)
    for solver in solvers:
        require_support(solver, problem.to_qubos()[0])
    runs = open_log(
        "proofs",
        options,
        "rows",
        "saturated",
        "seconds",
        content=digest(options.problem),
    )
    print(headline(options.problem, problem))
    failures = 0
    answers = []
    for solver in solvers:
        try:
            run = runs.run(solver_key(solver), partial(_errors, problem, solver))
            answers.append(run["E"])
        except SolverFailure as failure:
            report(failure)
            failures += 1
    if not answers:
        raise InputError("no solver of --reference has an answer")
    energies = np.min(answers, axis=0).tolist()
    lines = [["bound", "median gap", "least", "largest", "s"]]
    # The gap to an error that is nothing but rounding has no meaning.
    noise = ROUNDING * max(energies)
    live = [energy > noise for energy in energies]
    for name, bound in tqdm(BOUNDS.items(), desc="bounds", disable=None):
        run = runs.run(f"bound {name}", partial(_bound, problem, bound))
        pairs = zip(run["bounds"], energies, strict=True)
        gaps = [1 - b / E for b, E in compress(pairs, live) if b is not None]
        figures = (statistics.median(gaps), min(gaps), max(gaps)) if gaps else ()
        cells = [f"{figure:.4f}" for figure in figures] or ["-"] * 3
        lines.append([name, *cells, f"{run['seconds']:.2f}"])
    if not all(live):
        print(f"{live.count(False)} rows with no error but rounding have no gap")
    print(columns(lines))
    heading = ["exact, n", "proved", "median s of them", "largest gap of the others"]
    lines = [heading]
    plan = [(n, r) for n in sizes for r in range(problem.rows)]
    runs_by_size: dict[int, list[dict[str, Any]]] = {n: [] for n in sizes}
    for n, r in tqdm(plan, desc="exact", disable=None):
        prove = partial(_prove, problem, n, r, options.seconds)
        try:
            runs_by_size[n].append(runs.run(f"exact n {n} row {r}", prove))
        except SolverFailure as failure:
            report(failure)
            failures += 1
            runs_by_size[n].append({"proved": False, "gap": None})
    for n, rows in runs_by_size.items():
        proved = [run["seconds"] for run in rows if run["proved"]]
        others = [run["gap"] for run in rows if not run["proved"]]
        widest = "-" if None in others or not others else f"{max(others):.4f}"
        lines.append(
            [
                str(n),
                f"{len(proved)}/{len(rows)}",
                f"{statistics.median(proved):.3f}" if proved else "-",
                widest,
            ]
        )
    print(f"\n{columns(lines)}")
    return int(failures > 0)


def input_counts(sizes: list[int] | None, n: int) -> list[int]:
    """The numbers of inputs to search with; None stands for all n.

    Raises
    ------
    InputError
        A number does not lie in 1 to n.
    """
    if sizes is None:
        return [n]
    if not all(1 <= size <= n for size in sizes):
        text = ",".join(map(str, sizes))
        raise InputError(f"--sizes must lie in 1 to {n}, not {text}")
    return sizes


def first_inputs(problem: RoundingProblem, n: int) -> RoundingProblem:
    """The problem that the first n inputs of each row make."""
    lo, hi = (
        np.broadcast_to(b, problem.weight.shape) for b in (problem.lo, problem.hi)
    )
    return replace(
        problem,
        weight=problem.weight[:, :n],
        scale=problem.scale[:, :n],
        lo=lo[:, :n],
        hi=hi[:, :n],
        moment=problem.moment[:n, :n],
        gradient=None if problem.gradient is None else problem.gradient[:, :n],
    )


def _errors(problem: RoundingProblem, solver: Solver) -> dict[str, Any]:
    """The error of each row of a solver's answer."""
    states, _ = run_solver(solver, problem, 0, Budget())
    return {"E": problem.local_mse(states).tolist()}


def _bound(
    problem: RoundingProblem, bound: Callable[[QuboBatch], Float]
) -> dict[str, Any]:
    """The bounds of all rows, and the seconds they took."""
    (qubo,) = problem.to_qubos()
    begun = time.perf_counter()
    values = bound(qubo)
    return {
        "bounds": [_finite(b) for b in values],
        "seconds": time.perf_counter() - begun,
    }


def _prove(
    problem: RoundingProblem, n: int, row: int, seconds: float
) -> dict[str, Any]:
    """The result of exact search on the first n inputs of a row."""
    (qubo,) = first_inputs(problem, n).to_qubos()
    # So many nodes that only time ends a proof.
    one_row, solver = qubo.take([row]), Exact(million_nodes=10**6)
    with contained(solver):
        solver.compile_for(one_row)
        solution = solver.solve(one_row, budget=Budget(seconds=seconds))
    return {
        "energy": float(solution.energies[0]),
        "proved": bool(solution.info["proved"][0]),
        "gap": _finite(solution.info["gap"][0]),
        "nodes": int(solution.info["nodes"][0]),
        "seconds": solution.seconds,
    }


def _finite(value: float) -> float | None:
    """`value` as a number that JSON can hold; None if it is infinite or NaN."""
    return float(value) if np.isfinite(value) else None
