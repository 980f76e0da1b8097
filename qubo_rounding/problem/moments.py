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
    """Running sums behind E[x xᵀ] and E[x].

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

    Raises
    ------
    InputError
        If ``n`` or ``groups`` is below 1.
    """

    @allocating("the second moments of a layer's inputs")
    def __init__(self, n: int, groups: int = 1) -> None:
        require_count("n", n)
        require_count("groups", groups)
        self.n = n
        self.groups = groups
        self._count = 0
        self._first = np.zeros((groups, n))
        self._second = np.zeros((groups, n, n))

    def update(self, x: NDArray[Any]) -> None:
        """Add a batch of positions, ``[G, n, P]``, or ``[n, P]`` of one group.

        Raises
        ------
        InputError
            On another shape, NaN or inf, or values whose squares overflow. The sums
            are then unchanged.
        """
        x = self._checked(x)
        second = x @ x.transpose(0, 2, 1)
        # |E[x_i x_j]| <= sqrt(E[x_i²] E[x_j²]): a finite diagonal is enough.
        if not np.isfinite(np.diagonal(second, axis1=1, axis2=2)).all():
            raise InputError("x holds values whose squares overflow float64")
        self._second += second
        self._first += x.sum(axis=2)
        self._count += x.shape[2]

    def merge(self, other: Moments) -> None:
        """Add the sums of ``other``, as if its batches had been seen here.

        Raises
        ------
        InputError
            If ``n`` or ``groups`` differ.
        """
        ours, theirs = (self.n, self.groups), (other.n, other.groups)
        if ours != theirs:
            raise InputError(
                f"cannot merge moments with (n, groups) = {theirs} into {ours}"
            )
        self._count += other._count
        self._first += other._first
        self._second += other._second

    @property
    def count(self) -> int:
        """Positions seen, over all images and batches."""
        return self._count

    @property
    def second_moment(self) -> Array:
        """``[G, n, n]``: E[x xᵀ], exactly symmetric."""
        mean = self._mean_of(self._second)
        # A blocked product may leave some asymmetry.
        return (mean + mean.transpose(0, 2, 1)) / 2

    @property
    def mean(self) -> Array:
        """``[G, n]``: E[x]."""
        return self._mean_of(self._first)

    def _mean_of(self, total: Array) -> Array:
        if self._count == 0:
            raise InputError("no inputs seen yet: moments of zero positions")
        return total / self._count

    def _checked(self, x: NDArray[Any]) -> Array:
        x = real("x", x)
        if x.ndim == 2 and self.groups == 1:
            x = x[None]
        if x.ndim != 3 or x.shape[:2] != (self.groups, self.n):
            raise InputError(
                f"x has shape {x.shape}, expected ({self.groups}, {self.n}, positions)"
            )
        if not np.isfinite(x).all():
            g, i, p = np.argwhere(~np.isfinite(x))[0]
            raise InputError(
                f"x[{g}, {i}, {p}] (group, input, position) is {x[g, i, p]}; "
                "inputs must be finite"
            )
        return x.astype(np.float64, copy=False)
