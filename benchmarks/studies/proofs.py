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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.digests import modules_digest
from benchmarks.harness.problems import first_rows, headline, load_problem
from benchmarks.harness.store import Store, open_store
from benchmarks.harness.tables import columns
from benchmarks.harness.trials import Trial, Trials
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch, parse_solvers
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
# Millions of nodes: so many that only time ends a proof.
MANY = 10**6


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problem", required=True)
    add(parser, "saturated")
    add(parser, "rows", default=8, help="use the first N rows, or all of fewer")
    add(parser, "inputs", default="20,30,40,50,60")
    add(parser, "seconds", default=60.0, help="time limit of exact search per row")
    add(parser, "reference", default="kbest[paths=512],tabu")
    add(parser, "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print gaps of bounds, and what exact search proves; return the exit code."""
    problem = load_problem(options.problem, options.saturated, None)
    problem = first_rows(problem, min(options.rows, problem.rows))
    sizes = input_counts(options.sizes, problem.n)
    solvers = parse_solvers(options.reference)
    with open_store(options) as store, open_workers(options) as workers:
        name = options.problem.stem
        trials = Trials(lambda: problem, store, name=name, workers=workers)
        for solver in solvers:
            trials.require_support(solver)
        print(headline(options.problem, problem))
        answers = [trials.run(solver).run.energies for solver in solvers]
        print(_gaps(trials, store, [E for E in answers if E is not None]))
        exact = Exact(million_nodes=MANY)
        plan = [(n, r) for n in sizes for r in range(problem.rows)]
        proofs: dict[int, list[Trial]] = {n: [] for n in sizes}
        code = trials.exit_code
        for n, r in tqdm(plan, desc="exact", disable=None):
            row = Trials(
                partial(one_row, problem, n, r),
                store,
                name=f"{name}[{r}], {n} inputs",
                workers=workers,
            )
            proofs[n].append(row.run(exact, seconds=options.seconds))
            code |= row.exit_code
    print(f"\n{_proved(proofs)}")
    return code


def _gaps(trials: Trials, store: Store, answers: Sequence[Float]) -> str:
    """A line for each bound: the rows' gaps to the best of the answers."""
    if not answers:
        raise InputError("no solver of --reference has an answer")
    energies = np.min(answers, axis=0).tolist()
    (qubo,) = trials.qubos
    lines = [["bound", "median gap", "least", "largest", "s"]]
    # The gap to an error that is nothing but rounding has no meaning.
    noise = ROUNDING * max(energies)
    live = [energy > noise for energy in energies]
    code = modules_digest("solvers.proofs.bounds")
    for name, bound in tqdm(BOUNDS.items(), desc="bounds", disable=None):
        settings = {"bound": name, "problem": trials.known.digest, "code": code}
        found = store.fact(settings, partial(_bound, qubo, bound))
        pairs = zip(found["bounds"], energies, strict=True)
        gaps = [1 - b / E for b, E in compress(pairs, live) if b is not None]
        figures = (statistics.median(gaps), min(gaps), max(gaps)) if gaps else ()
        cells = [f"{figure:.4f}" for figure in figures] or ["-"] * 3
        lines.append([name, *cells, f"{found['seconds']:.2f}"])
    note = f"{live.count(False)} rows with no error but rounding have no gap\n"
    return note * (not all(live)) + columns(lines)


def _proved(proofs: Mapping[int, Sequence[Trial]]) -> str:
    """A line for each number of inputs: how many rows are proved, and the others."""
    lines = [["exact, n", "proved", "median s of them", "largest gap of the others"]]
    for n, trials in proofs.items():
        proved = [t.run.seconds for t in trials if _remark(t, "proved")]
        others = [_remark(t, "gap") for t in trials if not _remark(t, "proved")]
        gaps = [gap for gap in others if gap is not None]
        widest = f"{max(gaps):.4f}" if others and len(gaps) == len(others) else "-"
        lines.append(
            [
                str(n),
                f"{len(proved)}/{len(trials)}",
                f"{statistics.median(proved):.3f}" if proved else "-",
                widest,
            ]
        )
    return columns(lines)


def _remark(trial: Trial, name: str) -> Any:
    """What exact search says about its one row; None of a run that has failed."""
    return trial.run.info[0].get(name, [None])[0] if trial.run.info else None


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


def one_row(problem: RoundingProblem, n: int, row: int) -> QuboBatch:
    """The batch of one row that its first n inputs make."""
    (qubo,) = first_inputs(problem, n).to_qubos()
    return qubo.take([row])


def _bound(qubo: QuboBatch, bound: Callable[[QuboBatch], Float]) -> dict[str, Any]:
    """The bounds of all rows, and the seconds they took."""
    begun = time.perf_counter()
    values = bound(qubo)
    return {
        "bounds": [_finite(b) for b in values],
        "seconds": time.perf_counter() - begun,
    }


def _finite(value: float) -> float | None:
    """`value` as a number that JSON can hold; None if it is infinite or NaN."""
    return float(value) if np.isfinite(value) else None
