"""Certified lower bounds of the energies of every row of a batch.

Each bound is proved by numbers that float64 can check: a diagonal d for which ``Q +
Diag(d)`` is positive semi-definite (a Cholesky factor shows it), and a tangent of the
convex function ``x^T (Q + Diag(d)) x + (c - d).x + k``, whose least value over the unit
cube is taken. That function is the energy wherever x is 0 or 1. The largest error that
rounding can cause is subtracted.

The bounds are strong where H is well conditioned or sparse, and weak elsewhere: the
convex function may have its minimum 0 between the grid points.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec

import numpy as np
import scipy.linalg

from solvers.errors import InputError
from solvers.kernels import enumeration
from solvers.proofs.semidefinite import (
    EPS,
    Model,
    Split,
    central_path,
    positive_definite,
    tangent,
)
from solvers.qubo import Float, QuboBatch
from solvers.threads import one_blas_thread

# Halvings of the interval of shifts.
HALVINGS = 60
# The central path is followed until no more than this share of the bound can be gained.
END = 1e-4

P = ParamSpec("P")


def single_threaded(bound: Callable[P, Float]) -> Callable[P, Float]:
    """`bound`, with BLAS kept to one thread (see `solvers.threads.one_blas_thread`)."""

    @functools.wraps(bound)
    def limited(*args: P.args, **options: P.kwargs) -> Float:
        with one_blas_thread():
            return bound(*args, **options)

    return limited


@single_threaded
def diagonal_split(qubo: QuboBatch) -> Float:
    """Bounds [R] from the best multiple of ``s**2`` as the diagonal.

    In ``u = s*x`` this adds a multiple of the identity to H, so that one eigenvalue
    decomposition serves all rows with the same free variables. Takes ``n**3``
    operations for it, and ``n**2`` for each row.
    """
    bounds = np.empty(qubo.rows)
    scale, fixed = qubo.full_scale(), qubo.fixed
    pinned = np.zeros((qubo.rows, 1), bool) if fixed is None else fixed >= 0
    distinct, pattern_of_row = np.unique(pinned, axis=0, return_inverse=True)
    for pattern in range(len(distinct)):
        rows = np.flatnonzero(pattern_of_row.ravel() == pattern)
        free = qubo.free(rows[0])
        H = qubo.H[np.ix_(free, free)].astype(np.float64)
        models = [Model.of_row(qubo, int(r)) for r in rows]
        if not free.any():
            bounds[rows] = [model.k - model.noise for model in models]
            continue
        values, vectors = scipy.linalg.eigh(H)
        s = scale[rows][:, free]
        p = np.array([model.c for model in models]) / s @ vectors
        shifts = _best_shifts(values, p, s @ vectors)
        for r, model, shift, p_row, s_row in zip(
            rows, models, shifts, p, s, strict=True
        ):
            q_row = vectors.T @ s_row
            y = vectors @ ((shift * q_row - p_row) / (2 * (values + shift))) / s_row
            M = model.Q + np.diag(shift * s_row**2)
            lowest = tangent(M, model.c - shift * s_row**2, model.k, y)
            bounds[r] = lowest - model.noise
    return bounds


def _best_shifts(values: Float, p: Float, q: Float) -> Float:
    """Shifts [R] at which ``-1/4 sum_j (p_j - t q_j)^2 / (values_j + t)`` is greatest.

    The expression is concave in t; `p`, `q` are [R, m]. All shifts leave ``H + t I``
    positive definite in spite of the rounding of `values`, the eigenvalues of H.
    """
    size = float(np.abs(values).max()) or 1.0
    margin = 8 * (len(values) + 2) * EPS * size
    # Beyond this shift every term falls.
    top = size + np.abs(p).max(axis=1) / np.maximum(np.abs(q).max(axis=1), EPS)
    low = np.full(len(p), math.log(margin))
    high = np.log(top * 1e3)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        shift = (np.exp(middle) - values[0])[:, None]
        u = (shift * q - p) / (2 * (values + shift))
        rising = (u**2).sum(axis=1) > (q * u).sum(axis=1)
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.asarray(np.exp(low) - values[0])


@single_threaded
def semidefinite(qubo: QuboBatch, seconds: float | None = None) -> Float:
    """Bounds [R] from the best of all diagonals: the semidefinite relaxation.

    Its dual is solved by an interior-point method (see
    `solvers.proofs.semidefinite.central_path`), in some 40 steps of a few times
    ``n**3`` operations. The rows share `seconds` evenly, if given; each gets at least
    the first point of its path.
    """
    bounds = np.empty(qubo.rows)
    begun = time.perf_counter()
    for r in range(qubo.rows):
        share = math.inf if seconds is None else seconds * (r + 1) / qubo.rows
        model = Model.of_row(qubo, r)
        bounds[r] = model.k - model.noise if not model.c.size else -math.inf
        for point in _path(model) if model.c.size else ():
            bounds[r] = max(bounds[r], point.bound)
            if time.perf_counter() - begun > share:
                break
    return bounds


@single_threaded
def partial_enumeration(qubo: QuboBatch, variables: int = 16) -> Float:
    """Bounds [R] from all settings of a few variables, with the others relaxed.

    For a diagonal d with the minimum at y, ``(x - y)^T (Q + Diag(d)) (x - y)`` is at
    least ``(x_K - y_K)^T S (x_K - y_K)`` with S the Schur complement: its least value
    over all 2^k settings x_K is added to the semidefinite bound. The enumerated
    variables are those that the others determine best; d is the one on the central path
    that gives the best bound.

    Parameters
    ----------
    variables
        k, from 1 to 30.

    Raises
    ------
    InputError
        `variables` is not from 1 to 30.
    """
    if not 1 <= variables <= 30:
        raise InputError(f"variables must be a number from 1 to 30, not {variables}")
    bounds = np.empty(qubo.rows)
    for r in range(qubo.rows):
        model = Model.of_row(qubo, r)
        bounds[r] = model.k - model.noise if not model.c.size else -math.inf
        for point in _path(model) if model.c.size else ():
            bounds[r] = max(bounds[r], point.bound + _enumerated(point, variables))
    return bounds


def _path(model: Model) -> Iterator[Split]:
    """Points of the central path, until the bound can hardly rise any more."""
    for point, mu in filter(None, central_path(model)):
        yield point
        if mu * len(model.c) <= max(END * abs(point.bound), model.noise):
            break


def _enumerated(point: Split, count: int) -> float:
    """Least that enumerating `count` variables adds to the bound of a split."""
    m = len(point.y)
    chosen = _best_determined(point.inverse, min(count, m))
    place = np.ix_(chosen, chosen)
    S = np.linalg.inv(point.inverse[place])
    y = point.y[chosen]
    # Rounding may make S too large: made a little smaller, it provably is not.
    for reduction in (1e-9, 1e-6, 1e-3):
        rest = point.matrix.copy()
        rest[place] -= (1 - reduction) * (S + S.T) / 2
        if positive_definite(rest):
            break
    else:
        return 0.0
    S = (1 - reduction) * (S + S.T) / 2
    least, best = np.array([math.inf]), np.zeros(len(chosen), np.uint8)
    blocks = enumeration.blocks(len(chosen))
    enumeration.enumerate_states(S, -2 * (S @ y), 0, blocks, least, best)
    size = (np.abs(y) + 1) @ np.abs(S) @ (np.abs(y) + 1)
    return max(float(least[0] + y @ S @ y - 16 * EPS * size), 0.0)


def _best_determined(inverse: Float, count: int) -> list[int]:
    """The variables of least variance, each given those chosen before it."""
    P = inverse.copy()
    chosen: list[int] = []
    for _ in range(count):
        variances = P.diagonal().copy()
        variances[chosen] = np.inf
        i = int(variances.argmin())
        chosen.append(i)
        P -= np.outer(P[i], P[i] / max(P[i, i], 1e-300))
    return chosen
