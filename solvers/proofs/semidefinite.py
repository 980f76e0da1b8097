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
# The central path: how far one step goes and how many there are (to 1e-19 of the first
# mu); how near to a point is near enough (in energies, by mu), and after how many
# Newton steps it is given up.
SHRINK, POINTS, NEAR, STEPS = 0.2, 28, 0.1, 60


@dataclass(frozen=True, eq=False)
class Model:
    """Minimise ``x^T Q x + c.x + k`` over x in {0,1}^m.

    Attributes
    ----------
    Q, c, k
        Float64 [m, m], symmetric; [m]; a number.
    noise
        What rounding may do to an energy, that of the model it came from included.
    """

    Q: Float
    c: Float
    k: float
    noise: float

    @classmethod
    def of_row(cls, qubo: QuboBatch, row: int) -> Model:
        """A row's free variables, in their order."""
        s = np.broadcast_to(qubo.scale[row], (qubo.n,))
        Q = qubo.H.astype(np.float64) * s[:, None] * s
        c, k = qubo.linear[row], float(qubo.offset[row])
        terms = np.abs(Q).sum() + np.abs(c).sum() + abs(k)
        model = cls(Q, c, k, 16 * EPS * float(terms))
        return model if qubo.fixed is None else model.fix(qubo.fixed[row])

    def fix(self, values: NDArray[Any]) -> Model:
        """The model of the variables at -1 in `values` [m], the others at theirs."""
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
    d, y : [m]
        The diagonal; the minimum over all real x.
    bound
        Of all energies, less the rounding of its own computation.
    matrix, inverse : [m, m]
        ``Q + Diag(d)`` and its inverse.
    log_det
        Of the matrix.
    """

    d: Float
    y: Float
    bound: float
    matrix: Float
    inverse: Float
    log_det: float


def split(model: Model, d: Float) -> Split | None:
    """What `d` proves; None where ``Q + Diag(d)`` is not certainly positive definite.

    That a Cholesky factor exists in float64 proves it of the matrix with a little more
    on its diagonal (Rump, Verification of Positive Definiteness, 2006), which is added
    to d. The bound is that of the convex function's tangent at y over the unit cube:
    it holds whatever the rounding of y.
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
    """What to add to the diagonal of M, a Cholesky factor of which has been found."""
    return 4 * (len(M) + 2) * EPS * float(np.abs(M.diagonal()).sum())


def positive_definite(M: Float) -> bool:
    """Whether M certainly is, in spite of rounding."""
    M = M - rounding(M) * np.eye(len(M))
    return bool(scipy.linalg.lapack.dpotrf(M, lower=True)[1] == 0)


def tangent(M: Float, slope: Float, k: float, y: Float) -> float:
    """Least value over the unit cube of the tangent at y of a convex quadratic.

    That is, of ``x^T M x + slope.x + k`` with M positive semi-definite: a lower bound
    of its values there, less what the rounding of its own computation may come to.
    """
    pull = M @ y
    gradient = 2 * pull + slope
    down = np.minimum(-gradient * y, gradient * (1 - y)).sum()
    size = np.abs(y) @ (np.abs(M) @ (np.abs(y) + 1)) + np.abs(slope) @ (np.abs(y) + 1)
    noise = 16 * EPS * (size + abs(k))
    return float(y @ pull + slope @ y + k + down - noise)


def central_path(model: Model) -> Iterator[tuple[Split, float] | None]:
    """Points of the central path of the relaxation's dual, and their mu.

    None after every step of Newton's method, for a look at the clock.

    The dual (Shor) is to maximise over d the minimum over all real x, a concave
    function g(d); the path holds the maxima of ``g(d) + mu log det (Q + Diag(d))``,
    for ever smaller mu. No diagonal's bound is more than ``mu m`` above g.

    Each point takes a few times ``m**3`` operations.
    """
    unit = float(np.abs(model.Q).sum(axis=1).max() + np.abs(model.c).max()) or 1.0
    # So large a diagonal is all there is: this is nearly on the path.
    here, mu = split(model, np.full(len(model.c), 2 * unit)), unit / 2
    for _ in range(POINTS):
        here = None if here is None else (yield from centre(model, here, mu))
        if here is None:
            return
        yield here, mu
        mu *= SHRINK


def centre(model: Model, here: Split, mu: float) -> Generator[None, None, Split | None]:
    """The path's point at mu, by Newton's method from `here`; None: not found.

    g has the gradient ``y_i^2 - y_i`` and, with P the inverse of ``Q + Diag(d)``, the
    second derivatives ``-2 (1/2 - y_i) P_ij (1/2 - y_j)``.
    """
    for _ in range(STEPS):
        P, v = here.inverse, 0.5 - here.y
        uphill = here.y**2 - here.y + mu * P.diagonal()
        curvature = 2 * (v[:, None] * P * v) + (math.sqrt(mu) * P) ** 2
        _, step, failed = scipy.linalg.lapack.dposv(curvature, uphill)
        if failed:
            return None
        if float(uphill @ step) < NEAR * mu:
            return here
        there = _climb(model, here, step, mu)
        if there is None:
            return None
        here = there
        yield
    return None


def ellipsoid(
    model: Model, energy: float, share: float, start: Split
) -> Generator[None, None, Split]:
    """The path's point with ``mu m = share (energy - bound)``, from one near it.

    It makes ``bound + (x - y)^T (Q + Diag(d)) (x - y) <= energy`` an ellipsoid that
    holds all states of an energy up to `energy`. A share of 1 gives the least volume,
    where the derivatives of ``m log(energy - bound) - log det`` cancel; less, a
    higher bound. A split whose bound is not below `energy` is returned as it is, and so
    is the last one found where rounding leads no further.
    """
    here = start
    for _ in range(4):
        if here.bound >= energy:
            break
        mu = share * (energy - here.bound) / len(model.c)
        here = (yield from centre(model, here, mu)) or here
    return here


def _climb(model: Model, here: Split, step: Float, mu: float) -> Split | None:
    """The first point along `step`, halved again and again, that is higher."""
    value = here.bound + mu * here.log_det
    for halving in range(30):
        there = split(model, here.d + step * 0.5**halving)
        if there is not None and there.bound + mu * there.log_det > value:
            return there
    return None
