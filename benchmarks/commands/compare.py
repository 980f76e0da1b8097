"""All methods on one rounding problem: error against seconds, alone and polished.

    python -m benchmarks compare --problem FILE.npz

Errors are ratios to rounding to nearest, recomputed from the rounded weights; the
second pair of columns is after a steepest one-flip descent, whose seconds are included.
``NAME[…]@SECONDS`` limits a solver to so many seconds for all rows together. No solver
has a polish of its own here; kernels are compiled before the clock starts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.digests import modules_digest
from benchmarks.harness.problems import headline, load_problem, suited_betas
from benchmarks.harness.readers import read_entry
from benchmarks.harness.runs import States
from benchmarks.harness.store import open_store
from benchmarks.harness.tables import columns, number
from benchmarks.harness.trials import Score, Trial, Trials
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import Solver
from solvers.polish import descend
from solvers.registry import parse_solver, split_solvers

METHODS = (
    "nearest",
    "stochastic[pick=layer]",
    "stochastic",
    "descent[moves=cyclic]",
    "descent[moves=pair-flip]",
    "hopfield",
    "hopfield[form=sigmoid+reg]",
    "adaround[rate=1e-3]",
    "adaround[rate=1e-2]",
    "signround",
    "neal[num_sweeps=1000]",
    "neal[num_sweeps=10000]",
    "sa",
    "sa[num_sweeps=10000]",
    "cem",
    "cem[samples=1000,elite=0.02]",
    "babai[order=natural]",
    "babai[order=activation]",
    "babai[order=min-pivot]",
    "klein",
    "kbest[paths=16]",
    "kbest[paths=128]",
    "dwave-tabu@0.4",
    "dwave-tabu@1.4",
    "dwave-tabu@6.5",
    "dwave-tabu@32",
    "tabu@0.4",
    "tabu@2",
    "tabu@6.5",
    "qbsolv",
    "qbsolv[initial=random]",
    "gptq",
    "ste",
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problem", required=True)
    add(parser, "solver", metavar="NAME[…][@SECONDS],…", note="all methods")
    add(parser, "rows", "saturated", "seed", "threads")
    add(parser, "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print a line for each method; return the exit code."""
    problem = load_problem(options.problem, options.saturated, options.rows)
    texts = split_solvers(options.solver) if options.solver else methods(problem)
    entries = [read_entry(text) for text in texts]
    print(headline(options.problem, problem))
    results = []
    with open_store(options) as store, open_workers(options) as workers:
        name, threads = options.problem.stem, options.threads
        trials = Trials(
            lambda: problem, store, name=name, threads=threads, workers=workers
        )
        for solver, _ in entries:
            trials.require_support(solver)
        score = one_flip(problem, threads)
        try:
            for solver, seconds in tqdm(entries, desc="methods", disable=None):
                trial = measure(trials, solver, options.seed, seconds, score)
                results.append((trial, seconds))
        finally:
            if results:
                print(table(results))
    return trials.exit_code


def methods(problem: RoundingProblem) -> list[str]:
    """`METHODS`, and dwave's annealing between temperatures that suit the problem."""
    tuned = f"neal[num_sweeps=10000,{suited_betas(problem)}]"
    at = METHODS.index("sa")
    return [*METHODS[:at], tuned, *METHODS[at:]]


def one_flip(problem: RoundingProblem, threads: int = 1) -> Score:
    """What a steepest one-flip descent makes of an answer."""
    code = modules_digest("solvers.polish")
    return Score(
        key=f"one-flip descent {code}",
        of=lambda states: polish(problem, states, threads),
    )


def measure(
    trials: Trials, solver: Solver, seed: int, seconds: float | None, score: Score
) -> Trial:
    """A trial of a solver without its polish; in the set, its answer is scored."""
    bare = replace(solver, polish="none")
    return trials.run(
        bare, seed, seconds=seconds, score=None if solver.out_of_set else score
    )


def polish(problem: RoundingProblem, states: States, threads: int) -> dict[str, Any]:
    """The ratio to nearest after a one-flip descent, and the seconds it takes."""
    qubos = problem.to_qubos()
    parse_solver("descent").compile_for(qubos[0])
    begun = time.perf_counter()
    parts = states.astype(np.uint8).reshape(len(qubos), -1, qubos[0].n)
    descended = [
        descend(qubo, part, threads=threads)
        for qubo, part in zip(qubos, parts, strict=True)
    ]
    seconds = time.perf_counter() - begun
    nearest = float(problem.local_mse(problem.nearest()).sum())
    error = float(problem.local_mse(problem.join(descended)).sum())
    return {
        "polished_ratio": error / nearest if nearest else None,
        "polish_seconds": seconds,
    }


def table(results: Sequence[tuple[Trial, float | None]]) -> str:
    """A line for each trial; `results` are trials with their limits in seconds."""
    lines = [["method", "ratio", "s", "+ one-flip", "s", "status"]]
    for trial, seconds in results:
        polished = ["-", "-"] if trial.run.states is None else ["out of the set", ""]
        if trial.scores:
            whole = trial.run.seconds + trial.scores["polish_seconds"]
            polished = [number(trial.scores["polished_ratio"], 5), number(whole, 3)]
        lines.append(
            [
                trial.run.spec.solver + ("" if seconds is None else f"@{seconds:g}"),
                number(trial.ratio, 5),
                number(trial.run.seconds, 3),
                *polished,
                trial.status + _remark(trial.run.info),
            ]
        )
    return columns(lines)


def _remark(notes: Sequence[dict[str, Any]]) -> str:
    """A remark for the table: rows proved, or the share left undecided when rounded."""
    # A solver in a file may mean something else by these remarks.
    soft = [n["soft_fraction"] for n in notes if type(n.get("soft_fraction")) is float]
    rows = [n["proved"] for n in notes if isinstance(n.get("proved"), list)]
    proved = [row for part in rows for row in part]
    if proved and all(isinstance(row, bool) for row in proved):
        return f", {sum(proved)}/{len(proved)} proved"
    return f", {100 * max(soft):.2f} % soft" if soft else ""
