"""Problems from files, their first rows, and temperatures that suit them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from qubo_rounding.problem import RoundingProblem
from solvers.errors import InputError

# Inverse temperatures that suit dense rounding problems, in units of 1 / scale².
BETAS = (5.0, 200.0)


def load_problem(
    path: Path, saturated: str | None, rows: int | None
) -> RoundingProblem:
    """A saved problem, or its first rows.

    Raises
    ------
    InputError
        A file that holds no problem; rows that it does not have.
    """
    problem = RoundingProblem.load(path, saturated)
    return problem if rows is None else first_rows(problem, rows)


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


def headline(path: Path, problem: RoundingProblem) -> str:
    """Name and size of a problem, to stand above its tables."""
    return f"{path.stem}: {problem.rows} rows, n = {problem.n}"


def suited_betas(problem: RoundingProblem) -> str:
    """Options of annealers in units of 1/energy: temperatures that suit the problem."""
    low, high = BETAS / problem.scale.mean() ** 2
    return f"beta_min={low:.4g},beta_max={high:.4g}"
