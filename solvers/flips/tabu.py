"""`tabu`: search by single flips, with path relinking among a row's best states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.flips.tabu_walk import CHUNK, SPREAD, TabuWalk, run_length, tenures
from solvers.kernels import tabu_rounds
from solvers.kernels.tabu_state import Pool, Rules
from solvers.pace import Pace
from solvers.polish import descend
from solvers.qubo import States
from solvers.threads import over_rows

# Patience of a tabu run on a part, in sweeps of the part.
PART_PATIENCE = 2.0


@dataclass(frozen=True, kw_only=True)
class Tabu(Solver):
    """Short tabu runs that begin between the best states, or near one of them.

    Each row keeps a pool of distinct good states. A run leaves a random state of the
    pool, half-way towards another one or by a perturbation of randomly drawn variables,
    the cheapest flips first. Then it makes the best flip that is not tabu, again and
    again, until it no longer improves. A pool that has not changed for 5 runs per place
    begins anew from its best state. A sweep of the budget is n flips in every row.

    Parameters
    ----------
    num_sweeps
        Largest number of sweeps; a budget's ``sweeps`` caps it.
    pool
        Number of states kept per row.
    relink
        Probability that a run begins on the path to another state of the pool;
        otherwise it begins with a perturbation.
    patience
        Sweeps without improvement that end a run.
    tenure
        Iterations that a variable is tabu for after its flip, apart from up to 5 more
        that are drawn for each flip; 0: drawn for every run, between 2 % and 5 % of the
        variables. Never more than half of the free variables.
    weakest, strongest
        Fewest and most flips of a perturbation, as shares of the variables.
    share
        Share of the variables, drawn for each perturbation, that it may flip.
    subsize
        Number of variables of a part. A run that may enter the pool is improved part by
        part, the other variables clamped, as in `solvers.flips.qbsolv`; with 0 it is
        not.
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
        """Search all rows in chunks, with the same number of flips in each row."""
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
            # The best state may be in the pool, or in a run that has not ended.
            leader = energies.argmin(axis=1)
            for candidates, values in (
                (states[np.arange(rows), leader], energies.min(axis=1)),
                (walk.best, qubo.energies(walk.best, threads)),
            ):
                better = values < best_energy
                best = np.where(better[:, None], candidates, best)
                best_energy = np.where(better, values, best_energy)
            if not task.monitor.report(best_energy, best):
                break
        task.info["sweeps"] = -(-pace.taken // max(n, 1))
        task.info["flips"] = int(spent.sum())
        task.info["runs"] = int(runs.sum())
        # Runs ignore gains as small as the rounding of float32; the descent does not.
        return descend(
            qubo, best, threads=threads, going=lambda _: task.monitor.remaining() > 0
        )

    def rules(self, n: int) -> Rules:
        """The options in the form that the kernels take, for n variables."""
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
