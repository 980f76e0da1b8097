"""`sa`: simulated annealing with single flips."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.kernels import flips
from solvers.pace import Schedule
from solvers.polish import descend
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows
from solvers.walk import Walk

# Temperatures in units of the median flip cost at a one-flip local optimum.
HOT, COLD = 0.3, 0.03
# Sweeps of a chunk.
CHUNK = 50
# Fields are refreshed and energies reported after so many sweeps per variable: reading
# all of H for it takes longer than many a cold sweep.
REFRESH = 0.25


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnealing(Solver):
    """Metropolis sweeps under a geometric schedule of inverse temperatures.

    The default range of temperatures is found from the batch, by what flips cost at a
    one-flip local optimum: these costs are on the landscape's own scale, however the
    model is written, whereas the coefficients of an ill-conditioned dense H are far
    larger.

    Parameters
    ----------
    num_sweeps
        Sweeps of one anneal; a budget's ``sweeps`` caps it. If the budget's ``seconds``
        would end an anneal early, it cools faster instead of stopping hot.
    num_restarts
        Number of anneals, one after the other; the best state is kept.
    beta_min, beta_max
        Inverse temperatures at the start and at the end, in units of 1/energy; 0 if
        they are to be found from the batch, per row.
    float32
        Whether the local fields are kept in float32 between refreshes, for speed. The
        best states are always judged by energies in float64.
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
            self.beta_min == self.beta_max == 0
            or 0 < self.beta_min <= self.beta_max < math.inf,
            "give both beta_min and beta_max, 0 < beta_min <= beta_max, or neither",
        )

    def search(self, task: Task) -> States:
        """Anneal from the start, keeping the best state of all anneals."""
        qubo, threads = task.qubo, task.budget.threads
        lowest_states, lowest = task.start, qubo.energies(task.start, threads)
        if self.beta_min:
            log_hot, log_cold = np.log([self.beta_min, self.beta_max])
        else:
            # The local optimum that gives the temperatures may be the best state.
            lowest_states = descend(
                qubo,
                task.start,
                threads=threads,
                going=lambda _: task.monitor.remaining() > 0,
            )
            lowest = qubo.energies(lowest_states, threads)
            unit = typical_flip_cost(qubo, lowest_states, threads)[:, None]
            log_hot, log_cold = -np.log(HOT * unit), -np.log(COLD * unit)
        task.info["beta_range"] = tuple(
            float(np.exp(np.median(end))) for end in (log_hot, log_cold)
        )
        dtype = np.float32 if self.float32 and _fits_float32(qubo) else np.float64
        walk = Walk.at(qubo, task.start, threads, dtype)
        best, running = walk.z.copy(), lowest.copy()
        rng = task.streams()
        begun = task.monitor.elapsed()
        walk.move_to(qubo, task.start, threads)
        # Setting up the fields takes about as long as a hot sweep.
        schedule = Schedule(
            task.monitor,
            task.budget.cap(self.num_sweeps),
            CHUNK,
            each=task.monitor.elapsed() - begun,
            rounds=self.num_restarts,
            closed=True,
        )
        judged, going = 0, True
        while going:
            chunk = schedule.next()
            if chunk is not None:
                # The first anneal stands at the start already.
                if schedule.fresh and schedule.taken > len(chunk[0]):
                    walk.move_to(qubo, task.start, threads)
                beta = np.exp(log_hot + (log_cold - log_hot) * chunk[0])
                beta = np.broadcast_to(beta, (qubo.rows, len(chunk[0]))).copy()
                over_rows(
                    flips.anneal,
                    (walk.H,),
                    (
                        walk.z,
                        walk.u,
                        walk.q,
                        walk.energy,
                        best,
                        running,
                        beta,
                        rng,
                        walk.flips,
                    ),
                    threads,
                )
            new = schedule.taken - judged
            if not new:
                break
            if chunk is not None and new < REFRESH * qubo.n:
                continue
            # Rounding makes fields and energies drift: only exact ones count, and the
            # fields are set up afresh.
            states = (best[:, : qubo.n] < 0).astype(np.uint8)
            energies = qubo.energies(states, threads)
            lowest_states = np.where(
                (energies < lowest)[:, None], states, lowest_states
            )
            lowest = np.minimum(energies, lowest)
            going = task.monitor.report(lowest, lowest_states) and chunk is not None
            if going:
                walk.move_to(qubo, walk.states(), threads)
                judged, running = schedule.taken, lowest.copy()
        task.info["sweeps"] = schedule.taken
        task.info["flips"] = int(walk.flips.sum())
        return lowest_states


def typical_flip_cost(qubo: QuboBatch, optimum: States, threads: int = 1) -> Float:
    """Each row's median cost [R] of a flip at its one-flip local optimum [R, n]."""
    costs = Walk.at(qubo, optimum, threads, np.float64).flip_costs()
    costs[~(np.isfinite(costs) & (costs > 0))] = np.nan
    with warnings.catch_warnings():
        # A row without a free variable has no flips to cost anything; any unit will do.
        warnings.simplefilter("ignore", RuntimeWarning)
        typical = np.nanmedian(costs, axis=1)
    return np.where(np.isfinite(typical), typical, 1.0)


def _fits_float32(qubo: QuboBatch) -> bool:
    """Whether fields and costs stay well inside the range of float32."""
    scale = float(qubo.scale.max(initial=0))
    size = scale**2 * float(np.abs(qubo.H).max(initial=0)) * max(qubo.n, 1)
    return 1e-25 < size < 1e25 and float(np.abs(qubo.linear).max(initial=0)) < 1e25
