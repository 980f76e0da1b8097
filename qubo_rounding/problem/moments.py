"""Streaming float64 second moments of a layer's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checks import real, require_count
from solvers.errors import InputError
from solvers.memory import allocating

Array = NDArray[np.float64]


class Moments:
    """Running sums behind E[x xᵀ], E[x] and, with ``cross``, E[x x̂ᵀ].

    Only the sums are kept, so the memory is O(groups · n²) however many
    positions are seen, and the result does not depend on how they were split
    into batches (beyond float64 rounding).

    Parameters
    ----------
    n
        Inputs per output row: the columns of the weight matrix.
    groups
        Groups of a grouped convolution. Each group has its own inputs, and so its
        own moments; pooled moments would describe none of them.
    cross
        Whether every update brings a pair: ``x`` seen by the full-precision
        network and ``x_hat`` seen by the quantized one.

    Raises
    ------
    InputError
        If ``n`` or ``groups`` is below 1.
    """

    @allocating("the second moments of a layer's inputs")
    def __init__(self, n: int, groups: int = 1, cross: bool = False) -> None:
        require_count("n", n)
        require_count("groups", groups)
        self.n = n
        self.groups = groups
        self._count = 0
        self._first = np.zeros((groups, n))
        self._second = np.zeros((groups, n, n))
        self._cross = np.zeros((groups, n, n)) if cross else None
        self._reference = np.zeros((groups, n, n)) if cross else None
        self._reference_first = np.zeros((groups, n)) if cross else None

    def update(self, x: NDArray[Any], x_hat: NDArray[Any] | None = None) -> None:
        """Add a batch of positions.

        Parameters
        ----------
        x
            ``[G, n, P]``, or ``[n, P]`` when there is one group.
        x_hat
            The same positions in the quantized network; given exactly when ``cross``.

        Raises
        ------
        InputError
            On another shape, NaN or inf, values whose squares overflow, or an
            ``x_hat`` missing or not wanted. The sums are then unchanged.
        """
        x = self._checked(x, "x")
        if self._cross is None or self._reference is None:
            if x_hat is not None:
                raise InputError("x_hat given to moments without cross=True")
            self._add(x, x @ x.transpose(0, 2, 1))
            return
        if x_hat is None:
            raise InputError("moments with cross=True need x_hat beside x")
        x_hat = self._checked(x_hat, "x_hat")
        if x_hat.shape != x.shape:
            raise InputError(
                f"x_hat has shape {x_hat.shape}, x has {x.shape}; both must hold "
                "the same positions"
            )
        reference = x @ x.transpose(0, 2, 1)
        _refuse_overflow(reference, "x")
        self._add(x_hat, x_hat @ x_hat.transpose(0, 2, 1))
        self._reference += reference
        self._cross += x @ x_hat.transpose(0, 2, 1)
        assert self._reference_first is not None
        self._reference_first += x.sum(axis=2)

    def merge(self, other: Moments) -> None:
        """Add the sums of ``other``, as if its batches had been seen here.

        Raises
        ------
        InputError
            If ``n``, ``groups`` or ``cross`` differ.
        """
        ours = (self.n, self.groups, self._cross is not None)
        theirs = (other.n, other.groups, other._cross is not None)
        if ours != theirs:
            raise InputError(
                f"cannot merge moments with (n, groups, cross) = {theirs} into {ours}"
            )
        self._count += other._count
        self._first += other._first
        self._second += other._second
        if self._cross is not None and other._cross is not None:
            self._cross += other._cross
        if self._reference is not None and other._reference is not None:
            self._reference += other._reference
        if self._reference_first is not None and other._reference_first is not None:
            self._reference_first += other._reference_first

    @property
    def count(self) -> int:
        """Positions seen, over all images and batches."""
        return self._count

    @property
    def second_moment(self) -> Array:
        """``[G, n, n]``: E[x xᵀ], or E[x̂ x̂ᵀ] when ``cross``; exactly symmetric."""
        return _symmetric(self._mean_of(self._second))

    @property
    def mean(self) -> Array:
        """``[G, n]``: E[x], or E[x̂] when ``cross``."""
        return self._mean_of(self._first)

    @property
    def cross(self) -> Array | None:
        """``[G, n, n]``: E[x x̂ᵀ], row index x, when ``cross``."""
        return None if self._cross is None else self._mean_of(self._cross)

    @property
    def reference(self) -> Array | None:
        """``[G, n, n]``: E[x xᵀ] of the full-precision inputs, when ``cross``."""
        if self._reference is None:
            return None
        return _symmetric(self._mean_of(self._reference))

    @property
    def reference_mean(self) -> Array | None:
        """``[G, n]``: E[x] of the full-precision inputs, when ``cross``."""
        if self._reference_first is None:
            return None
        return self._mean_of(self._reference_first)

    def _add(self, x: Array, second: Array) -> None:
        _refuse_overflow(second, "x" if self._cross is None else "x_hat")
        self._second += second
        self._first += x.sum(axis=2)
        self._count += x.shape[2]

    def _mean_of(self, total: Array) -> Array:
        if self._count == 0:
            raise InputError("no inputs seen yet: moments of zero positions")
        return total / self._count

    def _checked(self, x: NDArray[Any], name: str) -> Array:
        x = real(name, x)
        if x.ndim == 2 and self.groups == 1:
            x = x[None]
        if x.ndim != 3 or x.shape[:2] != (self.groups, self.n):
            raise InputError(
                f"{name} has shape {x.shape}, expected "
                f"({self.groups}, {self.n}, positions)"
            )
        if not np.isfinite(x).all():
            g, i, p = np.argwhere(~np.isfinite(x))[0]
            raise InputError(
                f"{name}[{g}, {i}, {p}] (group, input, position) is {x[g, i, p]}; "
                "inputs must be finite"
            )
        return x.astype(np.float64, copy=False)


def _symmetric(matrices: Array) -> Array:
    """Remove the rounding asymmetry a blocked GEMM may leave."""
    return (matrices + matrices.transpose(0, 2, 1)) / 2


def _refuse_overflow(second: Array, name: str) -> None:
    # |E[x_i x_j]| <= sqrt(E[x_i²] E[x_j²]): a finite diagonal is enough.
    if not np.isfinite(np.diagonal(second, axis1=1, axis2=2)).all():
        raise InputError(f"{name} holds values whose squares overflow float64")
