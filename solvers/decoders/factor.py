"""Factors of H, orders of decision and centres: what lattice decoders share.

In ``y = s * x`` a row of a `QuboBatch` is ``E = y^T H y + (c / s).y + k``, and all
rows, whatever the granularity of their scale, share the factor of

    H' = H + d I = F F^T,   F upper triangular, variables in the order of decision.

With a centre p, the real minimiser of ``E(x) + d |s * (x - p)|^2`` is ``t = y* / s``,

    y* = H'^-1 b,   b = d s p - c / (2 s)   (= s p - H'^-1 (gradient of E at s p) / 2),

so that t = p wherever p is the unclipped target of an ordinary rounding row, and

    E(x) + d |s * (x - p)|^2 = |F^T y - v|^2 + constant,   F v = b.

The j-th term of that square holds ``y[0] .. y[j]`` alone, which is what decoders use.

*Damping is free on two values.* For ``p = 1/2`` the added term is ``d |s|^2 / 4`` at
every binary state: no energy changes by it, and no answer is lost. So any QUBO can be
decoded, an indefinite one with a d that outweighs its lowest eigenvalue, and a generous
d is a gain: the real minimisers that stand for undecided variables in the costs of a
path then stay near the box.

*Pins.* With Z the rows of ``F^-T`` that belong to the pinned variables,
``Z F^T y = y_pinned``: in these coordinates a pin is a linear equation, and the real
minimiser under the pins is the point of their solutions nearest to v,

    v + Z^T (Z Z^T)^-1 (y_pinned - Z v).

That is the conditional mean of a Gaussian with precision H', and needs no factor of
its own per row. A pinned variable takes its value when its turn comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.errors import InputError
from solvers.kernels import decode
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows

ORDERS = ("natural", "activation", "min-pivot", "v-blast")
# Least damping that is tried where the given one is too little, relative to the norm of
# H.
LEAST_DAMPING = 1e-6
# Where H is indefinite: damping as a multiple of minus its lowest eigenvalue. Just
# above 1 the last variables are undetermined; measured on random QUBOs, 1.2 to 1.5 is
# best.
BEYOND = 1.3
# Up to this size the lowest eigenvalue is found by dense algebra, beyond by Lanczos'
# method.
DENSE = 1000
# Squares of larger entries of H add up to more than float64 holds.
LARGEST = 1e150
# Rows of a matrix updated together, which bounds the memory of the update.
STRIPE = 512
# Bytes of shared factors beyond which they are forgotten.
MOST_SHARED = 2**28


# Factors by what they are made of, while they are shared.
_shared: ContextVar[dict[Any, Factor] | None] = ContextVar("factors", default=None)


@dataclass(frozen=True, eq=False)
class Factor:
    """``(H + damping I)[order][:, order] = upper @ upper.T``.

    Attributes
    ----------
    order : [n]
        The variables in the order of decision.
    upper, lower : float64 [n, n]
        F and F^T, both C-contiguous.
    damping
        What was added to the diagonal of H.
    """

    order: NDArray[np.intp]
    upper: Float
    lower: Float
    damping: float

    @cached_property
    def inverse_rows(self) -> Float:
        """``F^-T`` [n, n], whose row j belongs to the j-th decision."""
        inverse, _ = scipy.linalg.lapack.dtrtri(self.upper.T, lower=1)
        return np.ascontiguousarray(inverse)

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """Columns of `values` [R, n] in the order of decision, contiguous."""
        return np.ascontiguousarray(values[:, self.order])

    def restore(self, values: NDArray[Any]) -> NDArray[Any]:
        """Columns of `values` [R, n] moved from the order of decision to that of H."""
        restored = np.empty_like(values)
        restored[:, self.order] = values
        return restored


def factorise(
    H: NDArray[np.floating[Any]],
    order: str = "min-pivot",
    damping: float = 0.0,
    units: Float | None = None,
) -> Factor:
    """Factor H [n, n] plus a multiple of the identity.

    The multiple is `damping` times the mean absolute diagonal of H, and more where the
    sum is not positive definite.

    Parameters
    ----------
    order
        ``"natural"``; ``"activation"``: descending diagonal, as GPTQ's act-order;
        ``"min-pivot"``: the least pivot is decided last, the least of the rest before
        it, … (sorted QR, Wübben et al. 2001); ``"v-blast"``: the best determined
        variable first, then the best determined given that one, … (Wolniansky et al.
        1998). The last two take the time of one and of three further factorisations.
    units : [n], optional
        Units in which variables are measured when the order is chosen. Units that are
        nearly 1 give another order that is as good.

    Raises
    ------
    InputError
        Entries too large for a factor in float64.
    """
    if (factors := _shared.get()) is None:
        return _factorise(H, order, damping, units)
    content = hashlib.blake2b(np.ascontiguousarray(H).data).digest()
    key = (content, order, damping, None if units is None else units.tobytes())
    if key not in factors:
        if sum(factor.upper.nbytes for factor in factors.values()) > MOST_SHARED:
            factors.clear()
        factors[key] = _factorise(H, order, damping, units)
    return factors[key]


@contextmanager
def shared_factors() -> Iterator[None]:
    """Let solvers that are run within share the factors of equal matrices.

    For a layer that is solved several times. Where solvers are compared, each should
    make its own.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def _factorise(
    H: NDArray[np.floating[Any]], order: str, damping: float, units: Float | None
) -> Factor:
    if max(float(H.max(initial=0)), -float(H.min(initial=0))) > LARGEST:
        raise InputError(f"H must lie within {LARGEST:g} in size to be factorised")
    added = damping * float(np.abs(H.diagonal()).mean(dtype=np.float64))
    factor = _try_factor(H, order, added, units)
    if factor is None:
        added = max(added, _least_damping(H))
        while (factor := _try_factor(H, order, added, units)) is None:
            added *= 2.0
    return factor


def _try_factor(
    H: NDArray[np.floating[Any]], order: str, added: float, units: Float | None
) -> Factor | None:
    """The factor with `added` on the diagonal; None where no factor exists."""
    damped = H.astype(np.float64)
    damped[np.diag_indices(len(H))] += added
    decisions = _decision_order(
        damped if units is None else damped * units[:, None] * units, order
    )
    if decisions is None:
        return None
    last_first = decisions[::-1]
    root, failed = scipy.linalg.lapack.dpotrf(
        damped[np.ix_(last_first, last_first)].T, lower=1, overwrite_a=1
    )
    if failed:
        return None
    upper = np.ascontiguousarray(root[::-1, ::-1])
    return Factor(decisions, upper, np.ascontiguousarray(upper.T), added)


def _decision_order(damped: Float, order: str) -> NDArray[np.intp] | None:
    """The order of decision; None where `damped` is not positive definite."""
    if order == "natural":
        return np.arange(len(damped))
    if order == "activation":
        return np.argsort(-damped.diagonal(), kind="stable")
    if order == "min-pivot":
        pivots = least_pivots(damped.copy())
        return None if pivots is None else pivots[::-1]
    root, failed = scipy.linalg.lapack.dpotrf(damped)
    if failed:
        return None
    # The best determined variable has the least variance, the diagonal of the inverse.
    return least_pivots(scipy.linalg.lapack.dpotri(root)[0])


def least_pivots(A: Float) -> NDArray[np.intp] | None:
    """Order of elimination of A [n, n] that always takes the least pivot next.

    Blocked like LAPACK's dpstrf, which takes the greatest. None where a pivot is not
    positive. Only the upper triangle is read; A is overwritten.
    """
    n = len(A)
    A = np.ascontiguousarray(A)
    diagonal, order = A.diagonal().copy(), np.arange(n)
    W = np.zeros((decode.BLOCK, n))
    for first in range(0, n, decode.BLOCK):
        last = min(first + decode.BLOCK, n)
        if not decode.pivot_block(A, first, last, diagonal, order, W):
            return None
        for i in range(last, n, STRIPE):
            stripe = slice(i, min(i + STRIPE, n))
            A[stripe, i:] -= W[:, stripe].T @ W[:, i:]
    return order


def _least_damping(H: NDArray[np.floating[Any]]) -> float:
    """Damping that should make H positive definite."""
    norm = float(scipy.linalg.norm(H))
    if norm == 0:
        return 1.0
    if len(H) <= DENSE:
        lowest = scipy.linalg.eigvalsh(H, subset_by_index=[0, 0])
    else:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).standard_normal(len(H))
        lowest, _ = eigsh(H.astype(np.float64), 1, which="SA", v0=start, tol=0.01)
    return max(-BEYOND * float(lowest[0]), LEAST_DAMPING * norm)


@dataclass(frozen=True, eq=False)
class Targets:
    """Rows of a batch in the coordinates of a factor.

    Arrays are [R, n], in the order of decision.

    Attributes
    ----------
    factor
        The factor of H.
    v, scale : float64
        v and s of this module's docstring.
    low, high : int16
        Range of each variable; equal where it is pinned.
    """

    factor: Factor
    v: Float
    scale: Float
    low: NDArray[np.int16]
    high: NDArray[np.int16]

    def take(self, rows: slice) -> Targets:
        """Targets of the given rows."""
        return Targets(
            self.factor,
            self.v[rows],
            self.scale[rows],
            self.low[rows],
            self.high[rows],
        )

    def nearest_planes(
        self,
        beta: Float | None = None,
        rng: NDArray[np.uint64] | None = None,
        threads: int = 1,
    ) -> NDArray[np.int16]:
        """States [R, n] by Babai's rule or, with finite `beta`, by Klein's.

        Parameters
        ----------
        beta : float64 [R]
            Inverse temperatures; default: infinite.
        rng : uint64 [R]
            A random stream per row, which is advanced.
        """
        rows = len(self.v)
        states = np.empty(self.low.shape, np.int16)
        over_rows(
            decode.nearest_plane,
            (self.factor.upper,),
            (
                self.v,
                self.scale,
                self.low,
                self.high,
                np.full(rows, np.inf) if beta is None else beta,
                np.zeros(rows, np.uint64) if rng is None else rng,
                states,
            ),
            threads,
        )
        return self.factor.restore(states)

    def k_best(self, paths: int, threads: int = 1) -> States:
        """The best states [R, n] that a breadth-first search of `paths` paths finds."""
        states = np.empty(self.low.shape, np.uint8)
        over_rows(
            decode.k_best,
            (self.factor.upper, paths),
            (self.v, self.scale, self.low, self.high, states),
            threads,
        )
        return self.factor.restore(states)


def binary_targets(qubo: QuboBatch, factor: Factor, threads: int = 1) -> Targets:
    """Targets for states of 0 and 1, with pinned variables at their values."""
    low = np.zeros((qubo.rows, qubo.n), np.int16)
    high = np.ones_like(low)
    if qubo.fixed is not None:
        low[qubo.fixed == 1] = 1
        high[qubo.fixed == 0] = 0
    targets = _targets(qubo, factor, low, high, np.full((1, 1), 0.5), threads)
    pinned = targets.low == targets.high
    for r in np.flatnonzero(pinned.any(axis=1) & ~pinned.all(axis=1)):
        mask = pinned[r]
        Z = factor.inverse_rows[mask]
        value = targets.scale[r, mask] * targets.low[r, mask]
        force = np.linalg.solve(Z @ Z.T, value - Z @ targets.v[r])
        targets.v[r] += force @ Z
    return targets


def level_targets(qubo: QuboBatch, factor: Factor, threads: int = 1) -> Targets:
    """Targets for whole numbers within `QuboBatch.levels`, ignoring pins.

    On more than two values damping is not free: here it pulls towards the prior.
    """
    assert qubo.levels is not None
    low, high = qubo.levels.astype(np.int16)
    return _targets(qubo, factor, low, high, qubo.prior, threads)


def _targets(
    qubo: QuboBatch,
    factor: Factor,
    low: NDArray[np.int16],
    high: NDArray[np.int16],
    centre: Float,
    threads: int,
) -> Targets:
    scale = qubo.full_scale()
    b = factor.in_order(factor.damping * scale * centre - qubo.linear / (2.0 * scale))
    v = np.empty_like(b)
    # Not by LAPACK, where a row's last bits depend on how many rows are solved with it.
    over_rows(decode.solve_upper, (factor.lower,), (b, v), threads)
    return Targets(
        factor=factor,
        v=v,
        scale=factor.in_order(scale),
        low=factor.in_order(low),
        high=factor.in_order(high),
    )
