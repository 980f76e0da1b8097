"""Solvers at fixed seeds and sweeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import pytest

from benchmarks.regression.problems import problem
from benchmarks.regression.tolerances import EXACT, RELAXED, SEARCH
from solvers import Budget, QuboBatch, Solution, label, parse_solver
from solvers.testing import reference_energies

SEED = 1


@dataclass(frozen=True)
class Case:
    """A solver on a problem.

    Attributes
    ----------
    solver
        The solver's text, as on the command line.
    problem
        A name of `benchmarks.regression.problems`.
    tolerance
        A tolerance of `benchmarks.regression.tolerances`.
    sweeps
        The budget's sweeps; None for the solver's own limit.
    target
        Stop once every row's energy is at most this many times that of `kbest`; the
        counts are then those up to the target.
    """

    solver: str
    problem: str
    tolerance: float = EXACT
    sweeps: int | None = None
    target: float | None = None

    def __str__(self) -> str:
        to = "" if self.target is None else f" to {self.target:g}"
        return f"{label(parse_solver(self.solver))} {self.problem}{to}"

    def budget(self, qubo: QuboBatch) -> Budget:
        """The sweeps and the target; never seconds, so that counts are reproducible."""
        if self.target is None:
            return Budget(sweeps=self.sweeps)
        known = parse_solver("kbest").solve(qubo).energies
        return Budget(sweeps=self.sweeps, target=self.target * known)


# A new solver takes one line.
CASES = (
    Case("nearest", "conv147"),
    Case("stochastic", "conv147"),
    Case("descent", "conv576"),
    Case("babai", "conv147"),
    Case("babai", "conv576"),
    Case("kbest", "conv147"),
    Case("kbest", "conv576"),
    Case("klein", "conv147"),
    Case("lattice", "conv147", SEARCH, sweeps=200),
    Case("lattice", "conv576", SEARCH, sweeps=60),
    Case("lattice", "conv147", SEARCH, target=1.0),
    Case("auto", "conv147", SEARCH, sweeps=100),
    Case("auto", "flat", SEARCH, sweeps=100),
    Case("cem", "conv147", sweeps=10),
    Case("sa", "conv147", SEARCH, sweeps=500),
    Case("sa", "conv576", SEARCH, sweeps=500),
    Case("sa", "flat", SEARCH, sweeps=500),
    Case("sa", "flat", SEARCH, target=1.0),
    Case("tabu", "conv147", SEARCH, sweeps=100),
    Case("tabu", "conv576", SEARCH, sweeps=50),
    Case("tabu", "flat", SEARCH, sweeps=100),
    Case("tabu", "conv576", SEARCH, target=2.5),
    Case("qbsolv", "conv147", SEARCH, sweeps=5),
    Case("hopfield", "conv147", RELAXED, sweeps=500),
    Case("adaround[rate=0.01]", "conv147", RELAXED, sweeps=500),
    Case("ste", "conv147", RELAXED, sweeps=500),
    Case("signround", "conv147", RELAXED, sweeps=200),
    Case("gptq", "conv147"),
    Case("exact", "conv27"),
    Case("exact", "flat20"),
)


def counts(solution: Solution) -> dict[str, int]:
    """The whole numbers of a solution's info; those of rows are summed."""
    lists = {k: v if isinstance(v, list) else [v] for k, v in solution.info.items()}
    # To Python truth values are whole numbers, too; here they are not.
    return {k: sum(v) for k, v in lists.items() if v and {type(x) for x in v} == {int}}


@pytest.mark.benchmark(group="solvers", timer=process_time)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_solver(case: Case, measure: Callable[..., Any]) -> None:
    """Measure a solver on a problem."""
    solver, qubo = parse_solver(case.solver), problem(case.problem)
    budget = case.budget(qubo)

    def judge(solution: Solution) -> tuple[float, dict[str, int]]:
        energies = reference_energies(qubo, solution.states)
        if case.target is not None:
            assert solution.status == "target"
        return float(energies.sum()), counts(solution)

    measure(
        lambda: (),
        lambda: solver.solve(qubo, seed=SEED, budget=budget),
        judge,
        case.tolerance,
    )
