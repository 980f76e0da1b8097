"""Certified lower bounds of the energies of every row of a batch.

Each bound is proved by numbers that float64 can check: a diagonal d for which ``Q +
Diag(d)`` is positive semi-definite (a Cholesky factor shows it), and a tangent of the
convex function ``x^T (Q + Diag(d)) x + (c - d).x + k``, whose least value over the unit
cube is taken. That function is the energy wherever x is 0 or 1. What rounding may do is
subtracted.

They are strong where H is well conditioned or sparse, and weak where it is not: the
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

# Halvings of the interval of shifts; how near the central path is followed to its end.
HALVINGS, END = 60, 1e-4

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

    With ``u = s*x`` that is a multiple of the identity added to H: one eigenvalue
    decomposition serves all rows with the same free variables. Costs ``n**3`` and, for
    each row, ``n**2``.
    """
    bounds = np.empty(qubo.rows)
    scale, fixed = qubo.full_scale(), qubo.fixed
    patterns = np.zeros((qubo.rows, 1), bool) if fixed is None else fixed >= 0
    kinds, kind = np.unique(patterns, axis=0, return_inverse=True)
    for t in range(len(kinds)):
        rows = np.flatnonzero(kind.ravel() == t)
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
        for r, model, shift, z, own in zip(rows, models, shifts, p, s, strict=True):
            q = vectors.T @ own
            y = vectors @ ((shift * q - z) / (2 * (values + shift))) / own
            M = model.Q + np.diag(shift * own**2)
            lowest = tangent(M, model.c - shift * own**2, model.k, y)
            bounds[r] = lowest - model.noise
    return bounds


def _best_shifts(values: Float, p: Float, q: Float) -> Float:
    """Shifts [R] at which ``-1/4 sum_j (p_j - t q_j)^2 / (values_j + t)`` is greatest.

    Concave in t; `p`, `q` are [R, m]. All shifts leave ``H + t`` positive definite in
    spite of the rounding of its eigenvalues `values`.
    """
    size = float(np.abs(values).max()) or 1.0
    margin = 8 * (len(values) + 2) * EPS * size
    # Beyond the largest of these every term falls.
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
    """Bounds [R] from the best diagonal of all: the semidefinite relaxation.

    An interior-point method on its dual (see
    `solvers.proofs.semidefinite.central_path`): some 40 steps of a few times ``n**3``.
    The rows share `seconds` evenly, if given; each gets at least the first point of its
    path.
    """
    bounds = np.empty(qubo.rows)
    begun = time.perf_counter()
    for r in range(qubo.rows):
        share = math.inf if seconds is None else seconds * (r + 1) / qubo.rows
        model = Model.of_row(qubo, r)
        bounds[r] = model.k - model.noise if not model.c.size else -math.inf
        for here in _path(model) if model.c.size else ():
            bounds[r] = max(bounds[r], here.bound)
            if time.perf_counter() - begun > share:
                break
    return bounds


@single_threaded
def partial_enumeration(qubo: QuboBatch, variables: int = 16) -> Float:
    """Bounds [R] from all settings of some variables, the others relaxed.

    For a diagonal d with the minimum at y, ``(x - y)^T (Q + Diag(d)) (x - y)`` is at
    least ``(x_K - y_K)^T S (x_K - y_K)`` with S the Schur complement: its least value
    over all 2^k settings x_K is added to the semidefinite bound. The variables are
    those that the others determine best; d is the best one met on the central path.

    Parameters
    ----------
    variables
        k, from 1 to 30.

    Raises
    ------
    InputError
        Another number of variables.
    """
    if not 1 <= variables <= 30:
        raise InputError(f"variables must be a number from 1 to 30, not {variables}")
    bounds = np.empty(qubo.rows)
    for r in range(qubo.rows):
        model = Model.of_row(qubo, r)
        bounds[r] = model.k - model.noise if not model.c.size else -math.inf
        for here in _path(model) if model.c.size else ():
            bounds[r] = max(bounds[r], here.bound + _enumerated(here, variables))
    return bounds


def _path(model: Model) -> Iterator[Split]:
    """The central path, followed near enough to its end."""
    for here, mu in filter(None, central_path(model)):
        yield here
        if mu * len(model.c) <= max(END * abs(here.bound), model.noise):
            break


def _enumerated(here: Split, count: int) -> float:
    """What the settings of `count` variables add to a split's bound, at least."""
    m = len(here.y)
    chosen = _best_determined(here.inverse, min(count, m))
    S, place = (
        np.linalg.inv(here.inverse[np.ix_(chosen, chosen)]),
        np.ix_(chosen, chosen),
    )
    y = here.y[chosen]
    # Rounding may make S too large: a little less of it is provably small enough.
    for less in (1e-9, 1e-6, 1e-3):
        rest = here.matrix.copy()
        rest[place] -= (1 - less) * (S + S.T) / 2
        if positive_definite(rest):
            break
    else:
        return 0.0
    S = (1 - less) * (S + S.T) / 2
    least, best = np.array([math.inf]), np.zeros(len(chosen), np.uint8)
    blocks = enumeration.blocks(len(chosen))
    enumeration.enumerate_states(S, -2 * (S @ y), 0, blocks, least, best)
    size = (np.abs(y) + 1) @ np.abs(S) @ (np.abs(y) + 1)
    return max(float(least[0] + y @ S @ y - 16 * EPS * size), 0.0)


def _best_determined(inverse: Float, count: int) -> list[int]:
    """Variables with the least variance, one after the other given those before."""
    P = inverse.copy()
    chosen: list[int] = []
    for _ in range(count):
        left = P.diagonal().copy()
        left[chosen] = np.inf
        i = int(left.argmin())
        chosen.append(i)
        P -= np.outer(P[i], P[i] / max(P[i, i], 1e-300))
    return chosen
