"""The semidefinite relaxation of one binary quadratic model, by its dual."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.qubo import Float, QuboBatch

EPS = float(np.finfo(np.float64).eps)
# The central path: the factor by which mu falls from point to point, and the number of
# points (down to 1e-19 of the first mu).
SHRINK, POINTS = 0.2, 28
# Newton's method on one point: how near is near enough (in energy, over mu), and after
# how many steps the point is given up.
NEAR, STEPS = 0.1, 60


@dataclass(frozen=True, eq=False)
class Model:
    """Minimise ``x^T Q x + c.x + k`` over x in {0,1}^m.

    Attributes
    ----------
    Q : float64 [m, m]
        Symmetric.
    c : float64 [m]
    k
        A number.
    noise
        Largest error that rounding can cause in an energy, counting that of the model
        this one was derived from.
    """

    Q: Float
    c: Float
    k: float
    noise: float

    @classmethod
    def of_row(cls, qubo: QuboBatch, row: int) -> Model:
        """Model over the free variables of a row, in their order."""
        s = np.broadcast_to(qubo.scale[row], (qubo.n,))
        Q = qubo.H.astype(np.float64) * s[:, None] * s
        c, k = qubo.linear[row], float(qubo.offset[row])
        terms = np.abs(Q).sum() + np.abs(c).sum() + abs(k)
        model = cls(Q, c, k, 16 * EPS * float(terms))
        return model if qubo.fixed is None else model.fix(qubo.fixed[row])

    def fix(self, values: NDArray[Any]) -> Model:
        """Model over the variables that are -1 in `values` [m], the others fixed."""
        free = values < 0
        x = np.where(free, 0, values).astype(np.float64)
        pull = self.Q @ x
        return Model(
            np.ascontiguousarray(self.Q[np.ix_(free, free)]),
            (self.c + 2 * pull)[free],
            float(self.k + self.c @ x + x @ pull),
            self.noise,
        )

    def energies(self, states: NDArray[Any]) -> Float:
        """Energies of states [..., m]."""
        x = states.astype(np.float64)
        return np.asarray(((x @ self.Q + self.c) * x).sum(axis=-1) + self.k)


@dataclass(frozen=True, eq=False)
class Split:
    """A diagonal d with ``Q + Diag(d)`` positive definite, and what it proves.

    As ``x_i^2 = x_i``, every state x has an energy of at least
    ``bound + (x - y)^T (Q + Diag(d)) (x - y)``.

    Attributes
    ----------
    d : [m]
        The diagonal.
    y : [m]
        Where ``x^T (Q + Diag(d)) x + (c - d).x + k`` is least over all real x.
    bound
        Lower bound of all energies, less the rounding of its own computation.
    matrix, inverse : [m, m]
        ``Q + Diag(d)`` and its inverse.
    log_det
        Logarithm of the determinant of `matrix`.
    """

    d: Float
    y: Float
    bound: float
    matrix: Float
    inverse: Float
    log_det: float


def split(model: Model, d: Float) -> Split | None:
    """The split by `d`; None where ``Q + Diag(d)`` is not certainly positive definite.

    A Cholesky factor in float64 proves that the matrix is positive definite once a
    margin is added to its diagonal (Rump, Verification of Positive Definiteness, 2006);
    that margin is added to d. The bound is the least value over the unit cube of the
    convex function's tangent at y: it holds whatever the rounding of y.
    """
    diagonal = np.diag_indices(len(d))
    M = model.Q.copy()
    M[diagonal] += d
    factor, failed = scipy.linalg.lapack.dpotrf(M, lower=True)
    if failed:
        return None
    margin = rounding(M)
    d = d + margin
    M[diagonal] += margin
    inverse = scipy.linalg.lapack.dpotri(factor, lower=True)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    slope = model.c - d
    y = -0.5 * (inverse @ slope)
    log_det = 2 * float(np.log(factor.diagonal()).sum())
    bound = tangent(M, slope, model.k, y) - model.noise
    return Split(d, y, bound, M, inverse, log_det)


def rounding(M: Float) -> float:
    """Margin that, added to the diagonal of M, makes its Cholesky factor a proof."""
    return 4 * (len(M) + 2) * EPS * float(np.abs(M.diagonal()).sum())


def positive_definite(M: Float) -> bool:
    """Whether M is certainly positive definite, in spite of rounding."""
    M = M - rounding(M) * np.eye(len(M))
    return bool(scipy.linalg.lapack.dpotrf(M, lower=True)[1] == 0)


def tangent(M: Float, slope: Float, k: float, y: Float) -> float:
    """Least value over the unit cube of the tangent at y of a convex quadratic.

    The quadratic is ``x^T M x + slope.x + k`` with M positive semi-definite. The result
    is a lower bound of its values in the cube: the largest rounding error of this
    computation is subtracted.
    """
    pull = M @ y
    gradient = 2 * pull + slope
    fall = np.minimum(-gradient * y, gradient * (1 - y)).sum()
    size = np.abs(y) @ (np.abs(M) @ (np.abs(y) + 1)) + np.abs(slope) @ (np.abs(y) + 1)
    noise = 16 * EPS * (size + abs(k))
    return float(y @ pull + slope @ y + k + fall - noise)


def central_path(model: Model) -> Iterator[tuple[Split, float] | None]:
    """Points of the central path of the relaxation's dual, and their mu.

    None is yielded after every step of Newton's method, for a look at the clock.

    The dual (Shor) is to maximise over d the minimum over all real x, a concave
    function g(d); the path holds the maxima of ``g(d) + mu log det (Q + Diag(d))``,
    for ever smaller mu. There, g is within ``mu m`` of the bound of any diagonal.

    Each point takes a few times ``m**3`` operations.
    """
    unit = float(np.abs(model.Q).sum(axis=1).max() + np.abs(model.c).max()) or 1.0
    # Beside so large a diagonal Q hardly counts: this split is nearly on the path.
    point, mu = split(model, np.full(len(model.c), 2 * unit)), unit / 2
    for _ in range(POINTS):
        point = None if point is None else (yield from centre(model, point, mu))
        if point is None:
            return
        yield point, mu
        mu *= SHRINK


def centre(
    model: Model, point: Split, mu: float
) -> Generator[None, None, Split | None]:
    """The central path's point at mu, by Newton's method from `point`; None: not found.

    g has the gradient ``y_i^2 - y_i`` and, with P the inverse of ``Q + Diag(d)``, the
    second derivatives ``-2 (1/2 - y_i) P_ij (1/2 - y_j)``.
    """
    for _ in range(STEPS):
        P, v = point.inverse, 0.5 - point.y
        uphill = point.y**2 - point.y + mu * P.diagonal()
        curvature = 2 * (v[:, None] * P * v) + (math.sqrt(mu) * P) ** 2
        _, step, failed = scipy.linalg.lapack.dposv(curvature, uphill)
        if failed:
            return None
        if float(uphill @ step) < NEAR * mu:
            return point
        next_split = _climb(model, point, step, mu)
        if next_split is None:
            return None
        point = next_split
        yield
    return None


def ellipsoid(
    model: Model, energy: float, share: float, start: Split
) -> Generator[None, None, Split]:
    """The central path's point with ``mu m = share (energy - bound)``, from `start`.

    With this split, ``bound + (x - y)^T (Q + Diag(d)) (x - y) <= energy`` is an
    ellipsoid that holds all states with energies up to `energy`. A share of 1 gives the
    least volume, where the derivatives of ``m log(energy - bound) - log det`` cancel; a
    smaller share gives a higher bound. A split whose bound is not below `energy` is
    returned as it is, and so is the last one found where rounding allows no further
    step.
    """
    point = start
    for _ in range(4):
        if point.bound >= energy:
            break
        mu = share * (energy - point.bound) / len(model.c)
        point = (yield from centre(model, point, mu)) or point
    return point


def _climb(model: Model, point: Split, step: Float, mu: float) -> Split | None:
    """The first higher split along `step`, which is halved until there is one."""
    value = point.bound + mu * point.log_det
    for halving in range(30):
        candidate = split(model, point.d + step * 0.5**halving)
        if candidate is not None and candidate.bound + mu * candidate.log_det > value:
            return candidate
    return None
