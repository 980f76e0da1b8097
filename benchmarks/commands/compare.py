"""All methods on one rounding problem: error against seconds, alone and polished.

    python -m benchmarks compare --problem FILE.npz

Errors are ratios to rounding to nearest, recomputed from the rounded weights; the
second pair of columns is after a steepest one-flip descent, its seconds included.
``NAME[…]@SECONDS`` gives a solver so many seconds for all rows together. One thread;
kernels are compiled before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness import log, report
from benchmarks.harness.command import exit_code
from benchmarks.harness.race import run_solver, warm_up
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, Solver, label
from solvers.polish import descend
from solvers.registry import parse_solver, split_solvers

METHODS = (
    *("nearest", "stochastic[pick=layer]", "stochastic"),
    *("descent[moves=cyclic]", "descent[moves=pair-flip]"),
    *("hopfield", "hopfield[form=sigmoid+reg]", "adaround[rate=1e-3]"),
    *("adaround[rate=1e-2]", "signround"),
    *("neal[num_sweeps=1000]", "neal[num_sweeps=10000]"),
    *("sa", "sa[num_sweeps=10000]", "cem", "cem[samples=1000,elite=0.02]"),
    *("babai[order=natural]", "babai[order=activation]", "babai[order=min-pivot]"),
    *("klein", "kbest[paths=16]", "kbest[paths=128]"),
    *("dwave-tabu@0.4", "dwave-tabu@1.4", "dwave-tabu@6.5", "dwave-tabu@32"),
    *("tabu@0.4", "tabu@2", "tabu@6.5", "qbsolv", "qbsolv[initial=random]"),
    *("gptq", "ste"),
)
# Inverse temperatures that suit dense rounding problems, in units of 1 / scale².
BETAS = (5.0, 200.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description="All methods on one rounding problem.",
    )
    parser.add_argument("--problem", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--solver", metavar="NAME[…][@SECONDS],…", help="default: all")
    parser.add_argument("--rows", type=int, metavar="N", help="the first N (all)")
    parser.add_argument("--saturated", choices=("fixed", "free"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, metavar="FILE", help=log.HELP)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    problem = RoundingProblem.load(options.problem, options.saturated)
    if options.rows is not None:
        problem = first_rows(problem, options.rows)
    texts = split_solvers(options.solver) if options.solver else methods(problem)
    entries = [read_entry(text) for text in texts]
    print(f"{options.problem.stem}: {problem.rows} rows, n = {problem.n}")
    settings = vars(options) | {"log": None, "solver": None}
    settings |= {"command": "compare", "content": log.digest(options.problem)}
    environment = report.environment(options.threads)
    runs = log.RunLog(options.log, settings, {"environment": environment})
    rest = options.seed, options.threads
    lines = [
        runs.run(
            f"{label(solver)}@{seconds}",
            partial(measure, problem, solver, seconds, *rest),
        )
        for solver, seconds in tqdm(entries, desc="methods", disable=None)
    ]
    print(table(lines))
    return 0


def methods(problem: RoundingProblem) -> list[str]:
    """`METHODS`, and dwave's annealing between temperatures that suit the problem."""
    low, high = BETAS / problem.scale.mean() ** 2
    tuned = f"neal[num_sweeps=10000,beta_min={low:.4g},beta_max={high:.4g}]"
    at = METHODS.index("sa")
    return [*METHODS[:at], tuned, *METHODS[at:]]


def first_rows(problem: RoundingProblem, rows: int) -> RoundingProblem:
    """The first rows of a problem whose rows share one moment."""
    if problem.moment.shape != (problem.n, problem.n):
        raise InputError("--rows needs a problem whose rows share one moment")
    if not 1 <= rows <= problem.rows:
        raise InputError(f"--rows must be 1 to {problem.rows}, not {rows}")
    bounds = np.broadcast_arrays(problem.weight, problem.lo, problem.hi)[1:]
    lo, hi = (bound[:rows] for bound in bounds)
    return replace(
        problem,
        weight=problem.weight[:rows],
        scale=problem.scale[:rows],
        lo=lo,
        hi=hi,
        gradient=None if problem.gradient is None else problem.gradient[:rows],
        constant=None if problem.constant is None else problem.constant[:rows],
    )


def read_entry(text: str) -> tuple[Solver, float | None]:
    """The solver and its seconds of ``NAME[option=value,…]@SECONDS``."""
    name, at, seconds = text.rpartition("@")
    if not at or "]" in seconds:
        return parse_solver(text), None
    try:
        return parse_solver(name), float(seconds)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read seconds {seconds!r} of {text!r}") from error


def measure(
    problem: RoundingProblem,
    solver: Solver,
    seconds: float | None,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """One solver without its polish, and with a one-flip descent after it."""
    solver = replace(solver, polish="none")
    budget = Budget(seconds=seconds, threads=threads)
    states, record = run_solver(solver, problem, seed, budget)
    if seconds is not None:
        record["label"] += f"@{seconds:g}"
    nearest = float(problem.local_mse(problem.nearest()).sum())
    record["ratio"] = record["objective"] / nearest if nearest else None
    record["polished_ratio"] = record["polished_seconds"] = None
    if not solver.out_of_set:
        polish = parse_solver("descent")
        qubos = problem.to_qubos()
        warm_up(polish, qubos[0])
        begun = time.perf_counter()
        parts = states.astype(np.uint8).reshape(len(qubos), -1, qubos[0].n)
        polished = [
            descend(qubo, part, threads=threads)
            for qubo, part in zip(qubos, parts, strict=True)
        ]
        more = time.perf_counter() - begun
        error = float(problem.local_mse(problem.join(polished)).sum())
        record["polished_ratio"] = error / nearest if nearest else None
        record["polished_seconds"] = record["seconds"] + more
    return record


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A line for each method."""
    lines = [["method", "ratio", "s", "+ one-flip", "s", "status"]]
    for run in runs:
        polished = ["out of the set", ""]
        if run["polished_seconds"] is not None:
            polished = [_number(run["polished_ratio"], 5)]
            polished.append(_number(run["polished_seconds"], 3))
        lines.append(
            [
                run["label"],
                _number(run["ratio"], 5),
                _number(run["seconds"], 3),
                *polished,
                run["status"] + _remark(run["info"]),
            ]
        )
    return report.columns(lines)


def _number(value: float | None, digits: int) -> str:
    """A figure; a dash for the ratio to an error of 0."""
    return "-" if value is None else f"{value:.{digits}f}"


def _remark(notes: Sequence[dict[str, Any]]) -> str:
    """What a relaxation left undecided when it was rounded, or exact search proved."""
    soft = [note["soft_fraction"] for note in notes if "soft_fraction" in note]
    proved = [row for note in notes for row in note.get("proved", ())]
    if proved:
        return f", {sum(proved)}/{len(proved)} proved"
    return f", {100 * max(soft):.2f} % soft" if soft else ""


if __name__ == "__main__":
    sys.exit(main())
