"""Runs of solvers against seconds: their traces, and when they reach a target."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.harness import log, report
from benchmarks.harness.race import judge, solve
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, Solution, Solver, label
from solvers.qubo import Float

# How far apart, at most, are the budgets in which a target is looked for.
STEP = math.sqrt(2)
# A run that takes longer than its budget by this factor does not keep to it.
LATE = 1.1
# Sums of the same errors may differ by this share.
ROUNDING = 1e-9
RESAMPLES = 10_000
MISSED = (math.inf, math.inf)


class Races:
    """Runs of solvers on one problem, kept in the log.

    A run holds the ``ratio`` to nearest, the ``seconds``, those of ``building``, the
    ``status``, and in ``falls`` every new lowest ratio with the seconds it took.
    """

    def __init__(self, problem: RoundingProblem, options: argparse.Namespace) -> None:
        self._problem, self._threads = problem, options.threads
        self.seeds = options.seeds
        self._nearest = float(problem.local_mse(problem.nearest()).sum())
        if not self._nearest:
            raise InputError(
                "there is no ratio to nearest: rounding to nearest has no error"
            )
        self._qubos = problem.to_qubos()
        settings = {name: vars(options)[name] for name in ("rows", "saturated")}
        settings |= {"command": "anytime", "threads": options.threads}
        settings |= {"content": log.digest(options.problem)}
        environment = report.environment(options.threads)
        self._log = log.RunLog(options.log, settings, {"environment": environment})

    def require_support(self, solver: Solver) -> None:
        """Refuse a solver that cannot take the problem, before any work is done."""
        reason = solver.supports(self._qubos[0])
        solver.require(reason is None, str(reason))

    def runs(self, solver: Solver, seconds: float) -> list[dict[str, Any]]:
        """The runs of a solver with so many seconds, one for each seed."""
        return [self.run(solver, seconds, seed) for seed in range(self.seeds)]

    def run(self, solver: Solver, seconds: float, seed: int) -> dict[str, Any]:
        """One run, from the log or made now."""
        key = f"{label(solver)}@{seconds!r} seed {seed}"
        return self._log.run(key, partial(self._make, solver, seconds, seed))

    def _make(self, solver: Solver, seconds: float, seed: int) -> dict[str, Any]:
        budget = Budget(seconds=seconds, threads=self._threads)
        solutions = solve(solver, self._qubos, seed, budget)
        _, record = judge(solver, self._problem, self._qubos, seed, solutions)
        return {
            "ratio": record["objective"] / self._nearest,
            "seconds": record["seconds"],
            "building": sum(
                note.get(f"{part}_seconds", 0.0)
                for note in record["info"]
                for part in ("build", "library")
            ),
            "status": record["status"],
            "falls": falls(solutions, self._nearest),
        }


def falls(solutions: Sequence[Solution], nearest: float) -> list[tuple[float, float]]:
    """Seconds and ratio, whenever the error summed over all rows was lowest so far.

    The solutions' seconds follow one another; until its turn has come a batch stands
    at its start (at infinity, where the solver keeps none).
    """
    sums = np.array([found.trace[1][0].sum() for found in solutions])
    begun, lowest, steps = 0.0, math.inf, []
    for i, found in enumerate(solutions):
        seconds, energies = found.trace
        for at, energy in zip(seconds, energies.sum(axis=1), strict=True):
            sums[i] = energy
            if (total := float(sums.sum())) < lowest:
                lowest = total
                steps.append(
                    (float(begun + found.timing["prepare"] + at), lowest / nearest)
                )
        begun += found.seconds
    return steps


def budgets(seconds: Sequence[float]) -> Iterator[float]:
    """The given budgets, in increasing order, and so many between that none is far."""
    yield seconds[0]
    for low, high in pairwise(seconds):
        steps = math.ceil(math.log(high / low) / math.log(STEP) - 1e-9)
        yield from (low * (high / low) ** (i / steps) for i in range(1, steps))
        yield high


def time_to(
    races: Races, solver: Solver, ratio: float, ladder: Sequence[float], seed: int
) -> tuple[float, float]:
    """Seconds to the ratio, with building and without; infinite where it is missed.

    The building taken off is that of the whole run.
    """
    enough = ratio * (1 + ROUNDING)

    def reached(seconds: float) -> tuple[float, float]:
        run = races.run(solver, seconds, seed)
        # What the trace claims must hold of the answer.
        if run["status"] != "invalid" and run["ratio"] <= enough:
            for at, lowest in run["falls"]:
                if lowest <= enough and at <= LATE * ladder[-1]:
                    return at, max(at - run["building"], 0.0)
        return MISSED

    # Most that miss with the longest budget need not be tried with every shorter one.
    if reached(ladder[-1]) == MISSED:
        return MISSED
    return next(found for s in ladder if (found := reached(s)) != MISSED)


def interval(times: Float) -> tuple[float, float]:
    """A 95 % bootstrap interval of the median; infinite times sort last."""
    generator = np.random.default_rng(0)
    draws = generator.choice(times, (RESAMPLES, len(times)))
    low, high = np.sort(np.median(draws, axis=1))[[RESAMPLES // 40, -RESAMPLES // 40]]
    return float(low), float(high)
