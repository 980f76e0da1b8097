"""Simulated annealing with single flips, on all rows of a batch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers import kernels
from solvers.base import Monitor, Solver, Task
from solvers.descent import one_flip
from solvers.qubo import Float, QuboBatch, States
from solvers.rows import over_rows
from solvers.walk import Walk

# Temperatures in units of the median flip cost at a one-flip local optimum.
HOT, COLD = 0.3, 0.03
# Sweeps between refreshes of the fields, reports and looks at the clock.
CHUNK = 50


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnealing(Solver):
    """Metropolis sweeps under a geometric schedule of inverse temperatures.

    The default range of temperatures is found from the batch: flips at a one-flip local
    optimum cost what the landscape is made of, in whatever way the model is written,
    whereas the coefficients of an ill-conditioned dense H are far larger.

    Parameters
    ----------
    num_sweeps
        Sweeps of one anneal. A budget's ``sweeps`` caps it; where its ``seconds`` would
        end first, the schedule runs faster instead of stopping hot.
    num_restarts
        Anneals, one after the other; the best state is kept.
    beta_min, beta_max
        Inverse temperatures at the start and at the end, in units of 1/energy; 0: found
        from the batch, per row.
    float32
        Keep the local fields in float32 between refreshes, for speed. The best states
        are always judged by energies in float64.
    """

    name: ClassVar[str] = "sa"
    references: ClassVar[tuple[str, ...]] = (
        "Kirkpatrick, Gelatt, Vecchi, Optimization by Simulated Annealing, 1983",
    )
    num_sweeps: int = 1000
    num_restarts: int = 1
    beta_min: float = 0.0
    beta_max: float = 0.0
    float32: bool = True
    polish: str = "one-flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.num_sweeps >= 1, "num_sweeps must be at least 1")
        self.require(self.num_restarts >= 1, "num_restarts must be at least 1")
        self.require(
            (self.beta_min == self.beta_max == 0) or 0 < self.beta_min <= self.beta_max,
            "give both beta_min and beta_max, 0 < beta_min <= beta_max, or neither",
        )

    def search(self, task: Task) -> States:
        """Anneal from the start, keeping the best state of all anneals."""
        qubo, threads = task.qubo, task.budget.threads
        dtype = np.float32 if self.float32 else np.float64
        walk = Walk.at(qubo, task.start, threads, dtype)
        best, best_energy = walk.z.copy(), walk.energy.copy()
        log_hot, log_cold = self._log_betas(task)
        task.info["beta_range"] = (
            float(np.exp(np.median(log_hot))),
            float(np.exp(np.median(log_cold))),
        )
        rng = task.streams()
        pace = _Pace(task.monitor, task.budget.cap(self.num_sweeps), self.num_restarts)
        going = True
        while going and (position := pace.next_chunk()) is not None:
            # Fields drift by rounding; a new anneal begins at the start.
            fresh = task.start if position[0] == 0.0 else walk.states()
            walk.move_to(qubo, fresh, threads)
            beta = np.exp(log_hot + (log_cold - log_hot) * position)
            over_rows(
                kernels.anneal,
                (walk.H,),
                (walk.z, walk.u, walk.q, walk.energy, best, best_energy)
                + (beta, rng, walk.flips),
                threads,
            )
            going = task.monitor.report(best_energy)
        task.info["sweeps"] = pace.total
        task.info["flips"] = int(walk.flips.sum())
        return (best[:, : qubo.n] < 0).astype(np.uint8)

    def _log_betas(self, task: Task) -> tuple[Float, Float]:
        """Logarithms [R, 1] of the inverse temperatures at the start and the end."""
        rows = task.qubo.rows
        if self.beta_min:
            ends = np.log([self.beta_min, self.beta_max])
            return np.full((rows, 1), ends[0]), np.full((rows, 1), ends[1])
        unit = typical_flip_cost(task.qubo, task.start, task.budget.threads)
        return -np.log(HOT * unit)[:, None], -np.log(COLD * unit)[:, None]


def typical_flip_cost(qubo: QuboBatch, start: States, threads: int = 1) -> Float:
    """Median cost [R] of a flip at the one-flip local optimum below `start`."""
    optimum = one_flip(qubo, start, threads)
    costs = Walk.at(qubo, optimum, threads, np.float64).flip_costs()
    costs[~(np.isfinite(costs) & (costs > 0))] = np.nan
    with warnings.catch_warnings():
        # A row without a free variable has no cost; any unit will do.
        warnings.simplefilter("ignore", RuntimeWarning)
        typical = np.nanmedian(costs, axis=1)
    return np.where(np.isfinite(typical), typical, 1.0)


class _Pace:
    """Hands out the schedule of each anneal in chunks of sweeps.

    Positions run from 0 to 1. Without a limit of seconds every chunk has the same
    length, so that the answer is reproducible; with one, chunks are kept short against
    it, and steps are lengthened so that the last anneal ends cold and in time.
    """

    def __init__(self, monitor: Monitor, sweeps: int, restarts: int) -> None:
        self._monitor = monitor
        self._sweeps = sweeps
        self._restarts = restarts
        self._position = 0.0
        self._done = 0
        self._begun = monitor.elapsed()
        self.total = 0

    def next_chunk(self) -> Float | None:
        """Schedule positions of the next sweeps; None when all anneals are done."""
        if self._position >= 1.0 or self._done == self._sweeps:
            self._restarts -= 1
            self._position, self._done = 0.0, 0
        if self._restarts == 0:
            return None
        left = self._sweeps - self._done
        count = min(CHUNK, left)
        if math.isfinite(self._monitor.remaining()):
            left, count = self._in_time(left, count)
        step = (1.0 - self._position) / left
        positions: Float = self._position + step * np.arange(count, dtype=np.float64)
        self._position += step * count
        self._done += count
        self.total += count
        return positions

    def _in_time(self, left: int, count: int) -> tuple[int, int]:
        """Sweeps left in this anneal and in the next chunk that time allows for."""
        if self.total == 0:
            return left, 1
        seconds_each = (self._monitor.elapsed() - self._begun) / self.total
        affordable = self._monitor.remaining() / self._restarts / seconds_each
        left = max(min(left, int(affordable)), 1)
        return left, max(min(count, left, int(0.02 * affordable)), 1)
