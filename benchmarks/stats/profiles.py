"""Profiles: the share of problems that solvers solve, over the cost allowed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.stats.checks import numbers, require_length
from solvers.errors import InputError
from solvers.qubo import Float


def performance_profile(costs: ArrayLike, factors: ArrayLike) -> Float:
    """Share of problems that a solver solves at most a factor above the best solver.

    ρ_s(τ) = |{p : c_ps ≤ τ · min_s' c_ps'}| / P (Dolan and Moré, *Benchmarking
    optimization software with performance profiles*, 2002). At τ = 1 it is the share of
    problems on which a solver is the best, or ties; for large τ, the share it solves.

    Only of two solvers do profiles give a ranking: among more, who is second depends on
    who is first (Gould and Scott, *A note on performance profiles for benchmarking
    software*, 2016). Of more, show them pair by pair.

    Parameters
    ----------
    costs : [P, S]
        Cost of S solvers on P problems, from 0; +inf where a target was missed. A
        problem that nobody has solved counts among the P.
    factors : [T]
        τ, from 1.

    Returns
    -------
    float64 [S, T]
        Shares from 0 to 1, that never fall with τ.
    """
    table = numbers("costs", costs, 2, least=0, infinite=True)
    allowed = numbers("factors", factors, least=1)
    best = table.min(axis=1, keepdims=True)
    # Where the best cost is 0 or infinite, there are only the best and the others.
    ratios = np.where(table == best, 1.0, np.inf)
    with np.errstate(over="ignore"):
        np.divide(table, best, out=ratios, where=(best > 0) & np.isfinite(best))
    ratios[~np.isfinite(table)] = np.inf
    return _shares(ratios, allowed)


def data_profile(costs: ArrayLike, units: ArrayLike, budgets: ArrayLike) -> Float:
    """Share of problems that a solver solves within a budget in units of each.

    d_s(α) = |{p : c_ps ≤ α · u_p}| / P (Moré and Wild, *Benchmarking derivative-free
    optimization algorithms*, 2009, where u_p is the problem's number of variables
    plus 1). Unlike a performance profile it does not depend on the other solvers.

    Parameters
    ----------
    costs : [P, S]
        As for `performance_profile`.
    units : [P]
        What one unit of budget costs on each problem, positive: its n + 1, or the
        seconds of a sweep.
    budgets : [T]
        α, from 0.

    Returns
    -------
    float64 [S, T]
        Shares from 0 to 1, that never fall with α.
    """
    table = numbers("costs", costs, 2, least=0, infinite=True)
    scale = numbers("units", units, least=0)
    require_length("units", scale, len(table), "problems")
    if not scale.all():
        raise InputError("units hold a 0; each must be positive")
    with np.errstate(over="ignore"):
        multiples = table / scale[:, None]
    return _shares(multiples, numbers("budgets", budgets, least=0))


def _shares(table: Float, limits: Float) -> Float:
    """Share of each column's entries that are at most each limit, [S, T]."""
    ordered = np.sort(table.T, axis=1)
    counts = [np.searchsorted(column, limits, side="right") for column in ordered]
    return np.array(counts) / len(table)
