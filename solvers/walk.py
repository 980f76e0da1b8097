"""`Walk`: the state of a single-flip search in every row of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from solvers.kernels import energy, flips
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows

CACHE_LINE = 64


@dataclass(eq=False)
class Walk:
    """The search state that kernels work on (see `solvers.kernels`), for all rows.

    Rows are padded to whole vectors with variables that never flip, and begin at cache
    lines.

    Attributes
    ----------
    H : [n, width]
        The matrix, its rows padded with zeros.
    z, u, q : [R, width]
        Signed scale, local fields, diagonal costs (infinite where pinned or padded).
    energy : float64 [R]
        Energies of the current states.
    flips : int64 [R]
        Flips accepted so far.
    """

    H: NDArray[np.floating[Any]]
    z: NDArray[np.floating[Any]]
    u: NDArray[np.floating[Any]]
    q: NDArray[np.floating[Any]]
    energy: Float
    flips: NDArray[np.int64]

    @classmethod
    def at(
        cls,
        qubo: QuboBatch,
        states: States,
        threads: int = 1,
        dtype: DTypeLike | None = None,
    ) -> Walk:
        """Walk at `states` [R, n], in which pinned variables have their values.

        The arrays of floats other than `energy` have `dtype`, by default that of H.
        """
        dtype = np.dtype(dtype or qubo.H.dtype)
        n, width = qubo.n, qubo.n + -qubo.n % flips.LANES
        scale = qubo.full_scale()
        q = scale**2 * qubo.H.diagonal()
        if qubo.fixed is not None:
            q[qubo.fixed >= 0] = np.inf
        walk = cls(
            H=aligned(n, width, dtype, 0.0),
            z=aligned(qubo.rows, width, dtype, 1.0),
            u=aligned(qubo.rows, width, dtype, 0.0),
            q=aligned(qubo.rows, width, dtype, np.inf),
            energy=np.empty(qubo.rows),
            flips=np.zeros(qubo.rows, np.int64),
        )
        walk.H[:, :n], walk.q[:, :n] = qubo.H, q
        walk.move_to(qubo, states, threads)
        return walk

    def move_to(self, qubo: QuboBatch, states: States, threads: int = 1) -> None:
        """Move to `states`, with fields and energies recomputed by float64 sums."""
        n, scale = qubo.n, qubo.full_scale()
        u = np.empty_like(scale)
        over_rows(
            energy.fields,
            (qubo.H,),
            (scale, qubo.linear, states, u),
            threads,
        )
        # x^T S H S x = (s x).(u - c / (2 s)), which leaves half the linear part.
        on = states.astype(bool)
        self.energy = qubo.offset + np.where(
            on, scale * u + 0.5 * qubo.linear, 0.0
        ).sum(axis=1)
        self.z[:, :n] = np.where(on, -scale, scale)
        self.u[:, :n] = u

    def states(self) -> States:
        """The current states, [R, n]."""
        return (self.z[:, : len(self.H)] < 0).astype(np.uint8)

    def flip_costs(self) -> Float:
        """Energy change of flipping each variable [R, n]; infinite where pinned."""
        costs = 2.0 * self.z * self.u + self.q
        return np.asarray(costs[:, : len(self.H)], np.float64)


def aligned(rows: int, width: int, dtype: np.dtype[Any], fill: float) -> NDArray[Any]:
    """A filled array [rows, width] that begins at a cache line.

    A vector load that straddles two lines costs as much as two: annealing is 1.5 times
    as fast where rows begin at lines.
    """
    size = rows * width * dtype.itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    array = raw[start : start + size].view(dtype).reshape(rows, width)
    array[:] = fill
    return array


def apart(values: NDArray[Any]) -> NDArray[Any]:
    """Values [k] as the first column of an array whose rows are cache lines.

    Threads that write to one line wait for each other. All of the array's memory is its
    own, so that kernels are compiled for it once, whatever its size.
    """
    lines = aligned(len(values), CACHE_LINE // values.itemsize, values.dtype, 0)
    lines[:, 0] = values
    return lines
