"""Tabu search by single flips, with path relinking among a row's best states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Solver, Task
from solvers.errors import InputError
from solvers.kernels import flips, tabu_rounds
from solvers.kernels import tabu as kernels
from solvers.kernels.tabu_state import Matrix, Model, Place, Pool, Rules, Run
from solvers.pace import Pace
from solvers.polish import descend
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows
from solvers.walk import Walk, aligned

# A tenure is drawn for each run between these shares of the variables; each flip is
# tabu for up to SPREAD iterations more.
TENURES, SPREAD = (0.02, 0.05), 5
# Sweeps without improvement that end the search of a part.
PART_PATIENCE = 2.0
# Work between two reports, in variables looked at; about 50 ms.
CHUNK = 2 * 10**8


@dataclass(frozen=True, kw_only=True)
class Tabu(Solver):
    """Short tabu runs from the paths between the best states, and from around them.

    Each row keeps a pool of distinct good states. A run leaves a random one of them,
    half-way towards another one or by a perturbation among random variables, the least
    costs first; then makes the best flip that is not tabu, until it no longer improves.
    A pool that has not changed for 5 runs per place begins anew from its best state.
    A sweep of the budget is n flips in every row.

    Parameters
    ----------
    num_sweeps
        At most; a budget's ``sweeps`` caps it.
    pool
        States kept per row.
    relink
        Probability that a run begins on the path to another state of the pool; else it
        begins with a perturbation.
    patience
        Sweeps without improvement that end a run.
    tenure
        Iterations that a flip is tabu for, and up to 5 more; 0: from 2 % to 5 % of the
        variables, drawn for every run. Never more than half of the free variables.
    weakest, strongest
        Flips of a perturbation, as shares of the variables.
    share
        Share of the variables, drawn anew, that a perturbation may flip.
    subsize
        A run that may enter the pool is improved part by part, as in
        `solvers.flips.qbsolv`: so many variables at a time, the others clamped. 0: it
        is not.
    """

    name: ClassVar[str] = "tabu"
    references: ClassVar[tuple[str, ...]] = (
        "Palubeckis, Multistart Tabu Search Strategies for the Unconstrained Binary "
        "Quadratic Optimization Problem, 2004",
        "Palubeckis, Iterated Tabu Search for the Unconstrained Binary Quadratic "
        "Optimization Problem, 2006",
        "Wang, Lu, Glover, Hao, Path Relinking for Unconstrained Binary Quadratic "
        "Programming, 2012",
    )

    num_sweeps: int = 4000
    pool: int = 40
    relink: float = 0.8
    patience: float = 0.5
    tenure: int = 0
    weakest: float = 0.1
    strongest: float = 0.5
    share: float = 0.5
    subsize: int = 47

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.num_sweeps >= 1, "num_sweeps must be at least 1")
        self.require(self.pool >= 1, "pool must be at least 1")
        self.require(0 <= self.relink <= 1, "relink must lie in [0, 1]")
        self.require(
            0 < self.patience < math.inf, "patience must be positive and finite"
        )
        self.require(self.tenure >= 0, "tenure must be at least 0")
        self.require(
            0 <= self.weakest <= self.strongest <= 1,
            "weakest and strongest must satisfy 0 <= weakest <= strongest <= 1",
        )
        self.require(0 < self.share <= 1, "share must lie in (0, 1]")
        self.require(self.subsize >= 0, "subsize must be at least 0")

    def search(self, task: Task) -> States:
        """Search all rows, in chunks of as many flips for each."""
        qubo, threads = task.qubo, task.budget.threads
        rows, n = qubo.rows, qubo.n
        walk = TabuWalk.at(qubo, task.start, threads)
        states = np.zeros((rows, self.pool, n), np.uint8)
        energies = np.full((rows, self.pool), np.inf)
        tenure, held, stale, spent, runs = np.zeros((5, rows), np.int64)
        going = np.zeros(rows, bool)
        pool = Pool(states, energies, held, stale, tenure, going, spent, runs)
        rules, rng = self.rules(n), task.streams()
        best, best_energy = task.start, qubo.energies(task.start, threads)
        most = task.budget.cap(self.num_sweeps) * n
        pace = Pace(task.monitor, max(1, CHUNK // max(rows * n, 1)))
        while pace.next(most - pace.taken):
            over_rows(
                tabu_rounds.search,
                (walk.exact, walk.matrix, rules, pace.taken),
                (walk.model(qubo), *walk.position(), rng, pool),
                threads,
            )
            # The best of a pool, or of a run that is not over.
            leader = energies.argmin(axis=1)
            for found, value in (
                (states[np.arange(rows), leader], energies.min(axis=1)),
                (walk.best, qubo.energies(walk.best, threads)),
            ):
                better = value < best_energy
                best = np.where(better[:, None], found, best)
                best_energy = np.where(better, value, best_energy)
            if not task.monitor.report(best_energy):
                break
        task.info["flips"] = int(spent.sum())
        task.info["runs"] = int(runs.sum())
        # Runs ignore gains as small as the rounding of float32.
        return descend(
            qubo, best, threads=threads, going=lambda _: task.monitor.remaining() > 0
        )

    def rules(self, n: int) -> Rules:
        """The options as the kernels want them, for n variables."""
        size, (shortest, longest) = min(self.subsize, n), tenures(self.tenure, n)
        return Rules(
            patience=run_length(self.patience, n),
            relink=self.relink,
            share=self.share,
            weakest=max(1, round(self.weakest * n)),
            strongest=max(1, round(self.strongest * n)),
            shortest=shortest,
            longest=longest,
            spread=SPREAD,
            subsize=size,
            part_patience=run_length(PART_PATIENCE, size),
        )


def tenures(tenure: int, n: int) -> tuple[int, int]:
    """The shortest and the longest tenure that a run may draw, in iterations."""
    if tenure:
        return tenure, tenure
    shortest, longest = (max(1, round(share * n)) for share in TENURES)
    return shortest, longest


def run_length(patience: float, n: int) -> int:
    """Iterations without improvement that end a run.

    Bounded by what float32 can count.
    """
    return max(1, round(min(patience * n, 2**24 / kernels.PATIENCES)))


@dataclass(eq=False)
class TabuWalk:
    """Where a tabu search stands in every row, and the model in float32.

    Attributes
    ----------
    exact : float64 [n, n]
        The matrix that energies are computed with.
    H : float32 [n, width]
        The matrix, in units of a power of 2, its rows padded with zeros.
    index : int32 [width]
    low : int32
        The bits of a cost's pattern that hold a variable's index.
    barred : float32 [R, n]
        What is added to the costs of pinned variables so that they never flip.
    unit, root : float64 [R]
        A row's unit of energy, a power of 2; the factor of its scales that belongs to
        it.
    most : int64 [R]
        The longest tenure that leaves something to flip; -1 where nothing is free.
    noise : float64 [R]
        Changes of energy, in the row's unit, that may be rounding of the run's costs.
    here : uint8 [R, n]
    u : float64 [R, n]
        A state, at first the start, and its local fields; runs begin with these.
    z, cost, expiry : float32 [R, width]
        Signed scales, costs of flips, iterations at which they cease to be tabu.
    clock, found : int64 [R]
        Iterations of the run, and those at its best state.
    value, lowest : float64 [R]
        Energies where the row stands and of the run's best state, in the row's unit.
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
        """About to begin at `states` [R, n], whose pinned variables hold their values.

        Raises
        ------
        InputError
            Where sums of the coefficients overflow float64.
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
        # Powers of 2 round nothing, and whole numbers stay whole in float32. The two
        # exponents differ by an even one, so that the root is a power of 2 too.
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
            # Not compiled for this.
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
        """The matrix as runs read it."""
        return Matrix(self.H, self.index, self.low)

    def model(self, qubo: QuboBatch) -> Model:
        """What the kernels know of each row's model."""
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
        """What the kernels change as they go."""
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
