"""Problems of files, their first rows, synthetic ones; temperatures that suit them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch
from solvers.errors import printable

# Inverse temperatures that suit dense rounding problems, in units of 1 / scale².
BETAS = (5.0, 200.0)
# Correlation of neighbouring pixels in the patches that synthetic inputs are made of.
CORRELATION = 0.95


def load_problem(
    path: Path, saturated: str | None, rows: int | None
) -> RoundingProblem:
    """A saved problem, or its first rows.

    Raises
    ------
    InputError
        The file does not hold a problem, or not as many rows.
    """
    problem = RoundingProblem.load(path, saturated)
    return problem if rows is None else first_rows(problem, rows)


def first_rows(problem: RoundingProblem, rows: int) -> RoundingProblem:
    """The first rows of a problem whose rows share one moment.

    Raises
    ------
    InputError
        The rows do not share one moment, or there are not as many.
    """
    if problem.moment.shape != (problem.n, problem.n):
        raise InputError("--rows needs a problem whose rows share one moment")
    if not 1 <= rows <= problem.rows:
        raise InputError(f"--rows must be 1 to {problem.rows}, not {rows}")
    return some_rows(problem, slice(rows))


def some_rows(problem: RoundingProblem, rows: slice) -> RoundingProblem:
    """Some rows of a problem whose rows share one moment.

    Its `meta` says with which row they begin, unless it is the first.

    Raises
    ------
    InputError
        The rows do not share one moment.
    """
    if problem.moment.shape != (problem.n, problem.n):
        raise InputError("rows can be taken of problems whose rows share one moment")
    bounds = np.broadcast_arrays(problem.weight, problem.lo, problem.hi)[1:]
    lo, hi = (bound[rows] for bound in bounds)
    first = {"first_row": rows.start} if rows.start else {}
    return replace(
        problem,
        meta={**problem.meta, **first},
        weight=problem.weight[rows],
        scale=problem.scale[rows],
        lo=lo,
        hi=hi,
        gradient=None if problem.gradient is None else problem.gradient[rows],
        constant=None if problem.constant is None else problem.constant[rows],
    )


def headline(path: Path, problem: RoundingProblem) -> str:
    """A line with the name and the size of a problem, to print above its tables."""
    return f"{printable(path.stem)}: {problem.rows} rows, n = {problem.n}"


def suited_betas(problem: RoundingProblem) -> str:
    """Options ``beta_min`` and ``beta_max``, in 1/energy, that suit the problem."""
    low, high = BETAS / problem.scale.mean() ** 2
    return f"beta_min={low:.4g},beta_max={high:.4g}"


def synthetic(n: int, rows: int) -> QuboBatch:
    """A batch of random weights of a convolution on patches of smooth images.

    H is the moment of first-order autoregressive images times that of channels with a
    mean, cut to n inputs.
    """
    rng = np.random.default_rng(n)
    side = 7 if n % 49 == 0 else 3
    apart = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    patch = np.kron(CORRELATION**apart, CORRELATION**apart).astype(np.float32)
    channels = -(-n // side**2)
    samples = rng.standard_normal((channels, 2 * channels), np.float32) + 1
    moment = samples @ samples.T / np.float32(2 * channels)
    H = np.kron(np.maximum(moment, moment.T), patch)[:n, :n]
    weight = rng.random((rows, n))
    pull = (weight.astype(np.float32) @ H).astype(np.float64)
    return QuboBatch(
        H=H,
        linear=-2.0 * pull,
        offset=(pull * weight).sum(axis=1),
        scale=np.ones((rows, 1)),
        prior=weight,
        # As of 4 bits, for solvers that take the whole grid.
        levels=np.repeat(np.array([-8, 7], np.int32), rows * n).reshape(2, rows, n),
    )
