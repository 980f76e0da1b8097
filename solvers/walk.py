"""`Walk`: where a single-flip search stands in every row of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from solvers import kernels
from solvers.qubo import Float, QuboBatch, States
from solvers.rows import over_rows


@dataclass(eq=False)
class Walk:
    """The kernels' search state (see `solvers.kernels`), for all rows.

    Rows are padded to a whole number of blocks with variables that never flip, so that
    kernels run loops of fixed length over aligned memory.

    Attributes
    ----------
    H : [n, width]
        The matrix, its rows padded with zeros.
    z, u, q : [R, width]
        Signed scale, local fields, diagonal costs (infinite where pinned or padded).
    energy : float64 [R]
    flips : int64 [R]
        Accepted so far.
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
        """Stand at `states` [R, n], whose pinned variables are at their values.

        Everything but the energies is of `dtype`, by default that of H.
        """
        dtype = np.dtype(dtype or qubo.H.dtype)
        pad = ((0, 0), (0, -qubo.n % kernels.BLOCK))
        scale = qubo.full_scale()
        q = scale**2 * qubo.H.diagonal()
        if qubo.fixed is not None:
            q[qubo.fixed >= 0] = np.inf
        walk = cls(
            H=np.pad(qubo.H.astype(dtype, copy=False), pad),
            z=np.pad(scale.astype(dtype), pad, constant_values=1),
            u=np.zeros(1),
            q=np.pad(q.astype(dtype), pad, constant_values=np.inf),
            energy=np.empty(qubo.rows),
            flips=np.zeros(qubo.rows, np.int64),
        )
        walk.move_to(qubo, states, threads)
        return walk

    def move_to(self, qubo: QuboBatch, states: States, threads: int = 1) -> None:
        """Stand at `states`, with fields and energies fresh from float64 sums."""
        n, scale = qubo.n, qubo.full_scale()
        u = np.empty_like(scale)
        over_rows(
            kernels.fields,
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
        self.u = np.pad(u.astype(self.z.dtype), ((0, 0), (0, self.z.shape[1] - n)))

    def states(self) -> States:
        """Where the walk stands, [R, n]."""
        return (self.z[:, : len(self.H)] < 0).astype(np.uint8)

    def flip_costs(self) -> Float:
        """Energy change of flipping each variable [R, n]; infinite where pinned."""
        costs = 2.0 * self.z * self.u + self.q
        return np.asarray(costs[:, : len(self.H)], np.float64)
