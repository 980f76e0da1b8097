"""Moments of a layer's inputs, and of the error that its output should make up for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.checks import require_count
from solvers.errors import InputError
from solvers.memory import allocating

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TargetMoments:
    """What the least-squares problem of a layer in a rounded network is made of.

    The layer sees x̂ in the rounded network. Its output should make up for an error e:
    what its output, or the sum that takes its output, should be, less what it is with
    the original weights W,

        e = W x + r − W x̂ − r̂

    (x: its input in the original network; r, r̂: what the output is added to). With
    Δ = Ŵ − W the squared error of the output is, per row,

        E[(e − Δ x̂)²] = Δ H Δᵀ − 2 P Δᵀ + E[e²],   H = E[x̂ x̂ᵀ],  P = E[e x̂ᵀ]

    where the means are over positions. The cross moment E[x x̂ᵀ] of AdaRound's eq. (25)
    is not needed, since P is all that the linear term sees of it.

    Attributes
    ----------
    second_moment : [G, n, n]
        H of each of G equal blocks of rows.
    pull : [R, n]
        P.
    square : [R]
        E[e²].
    input_mean : [G, n]
        E[x̂].
    error_mean : [R]
        E[e].
    count
        Number of positions.
    """

    second_moment: Array
    pull: Array
    square: Array
    input_mean: Array
    error_mean: Array
    count: int

    @property
    def rows(self) -> int:
        """Number of rows R."""
        return len(self.pull)

    def _per_row(self, per_group: Array) -> Array:
        return np.repeat(per_group, self.rows // len(per_group), axis=0)

    def centred(self) -> TargetMoments:
        """The same for inputs and errors less their means.

        The minimum over a free bias: "round, then choose the best bias" (eq. 26 of
        AdaRound) is exactly this problem.
        """
        mean = self.input_mean
        return replace(
            self,
            second_moment=self.second_moment - mean[:, :, None] * mean[:, None, :],
            pull=self.pull - self.error_mean[:, None] * self._per_row(mean),
            square=np.maximum(self.square - self.error_mean**2, 0.0),
        )

    def bias_shift(self, change: Array) -> Array:
        """The best change of the bias [R] for weights changed by ``change`` [R, n]."""
        shift: Array = self.error_mean - np.einsum(
            "ri,ri->r", change, self._per_row(self.input_mean)
        )
        return shift

    def error(self, change: Array) -> Array:
        """E[(e − Δ x̂)²] of each row [R] for weights changed by ``change`` [R, n]."""
        grouped = change.reshape(len(self.second_moment), -1, change.shape[1])
        quadratic = np.einsum("gri,gri->gr", grouped @ self.second_moment, grouped)
        linear = np.einsum("ri,ri->r", self.pull, change)
        error: Array = quadratic.ravel() - 2 * linear + self.square
        return error

    def shift(self, damping: float) -> Array:
        """The change of the weights [R, n] that makes up for most of the error.

        ``P (H + λ I)⁻¹`` with λ = ``damping`` times the mean diagonal of H.
        """
        H = self.second_moment
        n = H.shape[-1]
        ridge = damping * np.einsum("gii->g", H) / n
        ridge = np.maximum(ridge, np.finfo(np.float64).tiny)
        shift = np.empty_like(self.pull).reshape(len(H), -1, n)
        for block, pulls, own, result in zip(
            H, self.pull.reshape(shift.shape), ridge, shift, strict=True
        ):
            damped = block.copy()
            damped[np.diag_indices(n)] += own
            factor = scipy.linalg.cho_factor(damped, overwrite_a=True)
            result[:] = scipy.linalg.cho_solve(factor, pulls.T).T
        return shift.reshape(self.pull.shape)


class TargetSums:
    """The sums behind `TargetMoments`, over batches of positions.

    Parameters
    ----------
    n, rows, groups
        Size of the layer as a matrix, and its number of blocks of rows.
    """

    @allocating("the second moments of a layer's inputs")
    def __init__(self, n: int, rows: int, groups: int = 1) -> None:
        require_count("n", n)
        require_count("rows", rows)
        require_count("groups", groups)
        if rows % groups:
            raise InputError(f"{groups} groups do not divide {rows} rows")
        self._count = 0
        self._weight = 0.0
        self._second = np.zeros((groups, n, n))
        self._pull = np.zeros((groups, rows // groups, n))
        self._square = np.zeros(rows)
        self._input = np.zeros((groups, n))
        self._error = np.zeros(rows)

    def update(
        self,
        inputs: NDArray[Any],
        errors: NDArray[Any] | None = None,
        weights: NDArray[Any] | None = None,
    ) -> None:
        """Add a batch of positions.

        Parameters
        ----------
        inputs
            x̂, ``[G, n, P]``, in float64.
        errors
            e, ``[R, P]``; None for zeros.
        weights
            How much each position counts, ``[P]``, from 0; None for ones.
        """
        groups, _, positions = inputs.shape
        weighted = inputs
        if weights is not None:
            weighted = inputs * weights
            self._count += int(np.count_nonzero(weights))
            self._weight += float(weights.sum())
        else:
            self._count += positions
            self._weight += positions
        # The same array twice lets BLAS compute one half of a symmetric product.
        across = inputs.transpose(0, 2, 1)
        self._second += weighted @ across
        self._input += weighted.sum(axis=2)
        if errors is None:
            return
        e = errors.astype(np.float64, copy=False)
        heavy = e if weights is None else e * weights
        self._pull += heavy.reshape(groups, -1, positions) @ across
        self._square += np.einsum("rp,rp->r", heavy, e)
        self._error += heavy.sum(axis=1)

    def merge(self, other: TargetSums) -> None:
        """Add the sums of another part of the positions."""
        self._count += other._count
        self._weight += other._weight
        for name in ("_second", "_pull", "_square", "_input", "_error"):
            getattr(self, name).__iadd__(getattr(other, name))

    @property
    def count(self) -> int:
        """Number of positions so far."""
        return self._count

    def moments(self) -> TargetMoments:
        """The means over all positions so far.

        Raises
        ------
        InputError
            No position has counted yet.
        """
        if self._weight <= 0:
            raise InputError("no inputs seen yet: moments of zero positions")
        total = self._weight
        second = self._second / total
        return TargetMoments(
            second_moment=(second + second.transpose(0, 2, 1)) / 2,
            pull=self._pull.reshape(-1, self._pull.shape[2]) / total,
            square=self._square / total,
            input_mean=self._input / total,
            error_mean=self._error / total,
            count=self._count,
        )
