"""`TabuWalk`: the state of a tabu search in every row; lengths of tabu runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.errors import InputError
from solvers.kernels import flips
from solvers.kernels import tabu as kernels
from solvers.kernels.tabu_state import Matrix, Model, Place, Run
from solvers.qubo import Float, QuboBatch, States
from solvers.walk import Walk, aligned

# A run's tenure is drawn between these shares of the variables; a flip is tabu for the
# tenure and up to SPREAD iterations more.
TENURES, SPREAD = (0.02, 0.05), 5
# Work between two reports, in variables looked at; it takes about 50 ms.
CHUNK = 2 * 10**8


def tenures(tenure: int, n: int) -> tuple[int, int]:
    """The shortest and the longest tenure that a run may draw, in iterations."""
    if tenure:
        return tenure, tenure
    shortest, longest = (max(1, round(share * n)) for share in TENURES)
    return shortest, longest


def run_length(patience: float, n: int) -> int:
    """Iterations without improvement that end a run, `patience` times n.

    Bounded by what float32 can count.
    """
    return max(1, round(min(patience * n, 2**24 / kernels.PATIENCES)))


@dataclass(eq=False)
class TabuWalk:
    """The state of a tabu search in every row, and the model in float32.

    Attributes
    ----------
    exact : float64 [n, n]
        The matrix that energies are computed with.
    H : float32 [n, width]
        The matrix in units of a power of 2, its rows padded with zeros.
    index : int32 [width]
        The numbers 0 to width - 1.
    low : int32
        The bits of a cost's pattern that hold a variable's index.
    barred : float32 [R, n]
        Added to the costs of flips, so that pinned variables never flip; 0 for free
        ones.
    unit : float64 [R]
        Each row's unit of energy, a power of 2.
    root : float64 [R]
        Factor of each row's scales that makes their products with `H` costs in `unit`.
    most : int64 [R]
        The longest tenure that leaves something to flip; -1 where nothing is free.
    noise : float64 [R]
        Changes of energy, in the row's unit, that may be rounding of the run's costs.
    here : uint8 [R, n]
        The state that a run begins with; at first the start.
    u : float64 [R, n]
        The local fields of `here`.
    z, cost, expiry : float32 [R, width]
        Signed scales, costs of flips, iterations at which flips cease to be tabu.
    clock, found : int64 [R]
        Iterations of the run so far, and up to its best state.
    value, lowest : float64 [R]
        Energies of the present state and of the run's best one, in the row's unit.
    best : uint8 [R, n]
        The run's best state.
    """

    exact: Float
    H: NDArray[np.float32]
    index: NDArray[np.int32]
    low: np.int32
    barred: NDArray[np.float32]
    unit: Float
    root: Float
    most: NDArray[np.int64]
    noise: Float
    here: States
    u: Float
    z: NDArray[np.float32]
    cost: NDArray[np.float32]
    expiry: NDArray[np.float32]
    clock: NDArray[np.int64]
    found: NDArray[np.int64]
    value: Float
    lowest: Float
    best: States

    @classmethod
    def at(cls, qubo: QuboBatch, states: States, threads: int = 1) -> TabuWalk:
        """A search about to begin at `states` [R, n], which hold the pinned values.

        Raises
        ------
        InputError
            Sums of the coefficients overflow float64.
        """
        rows, n = qubo.rows, qubo.n
        width = n + -n % flips.LANES
        exact = np.asarray(qubo.H, np.float64)
        scale, sizes = qubo.full_scale(), np.abs(exact)
        with np.errstate(over="ignore"):
            bound = 2 * scale * (scale @ sizes) + np.abs(qubo.linear)
        bound = bound.max(axis=1, initial=0.0)
        if not np.isfinite(bound).all():
            raise InputError("H, scale and linear are too large: their sums overflow")
        # Scaling by powers of 2 does not round, and keeps whole coefficients exact in
        # float32. The two exponents differ by an even number, so that the root is a
        # power of 2 too.
        power = int(np.frexp(sizes.max(initial=0.0))[1])
        powers = np.frexp(bound)[1].astype(np.int64)
        powers += (powers - power) % 2
        free = np.ones((rows, n), bool) if qubo.fixed is None else qubo.fixed < 0
        unit = np.ldexp(1.0, powers)
        walk = Walk.at(qubo, states, threads, np.float64)
        count = free.sum(axis=1)
        kind = np.dtype(np.float32)
        tabu = cls(
            exact=exact,
            H=aligned(n, width, kind, 0.0),
            index=np.arange(width, dtype=np.int32),
            # Called as Python, so that it is not compiled for this one call.
            low=np.int32(kernels.places.py_func(width)),
            barred=np.where(free, kind.type(0), kernels.NEVER),
            unit=unit,
            root=np.ldexp(1.0, -((powers - power) // 2)),
            most=np.where(count > 0, count // 2, -1),
            noise=np.zeros(rows),
            here=states.copy(),
            u=np.array(walk.u[:, :n], np.float64),
            z=aligned(rows, width, kind, 1.0),
            cost=aligned(rows, width, kind, float(kernels.NEVER)),
            expiry=aligned(rows, width, kind, 0.0),
            clock=np.zeros(rows, np.int64),
            found=np.zeros(rows, np.int64),
            value=np.zeros(rows),
            lowest=np.zeros(rows),
            best=states.copy(),
        )
        tabu.H[:, :n] = np.ldexp(exact, -power)
        return tabu

    @property
    def matrix(self) -> Matrix:
        """The matrix in the form that the kernels read."""
        return Matrix(self.H, self.index, self.low)

    def model(self, qubo: QuboBatch) -> Model:
        """Each row's model in the form that the kernels read."""
        return Model(
            qubo.full_scale(),
            qubo.linear,
            qubo.offset,
            self.barred,
            self.unit,
            self.root,
            self.most,
        )

    def position(self) -> tuple[Place, Run]:
        """The arrays that the kernels change: each row's place and its run."""
        return Place(self.noise, self.here, self.u), Run(
            self.z,
            self.cost,
            self.expiry,
            self.clock,
            self.found,
            self.value,
            self.lowest,
            self.best,
        )
