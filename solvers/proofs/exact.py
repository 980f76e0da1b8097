"""`exact`: optimal states with proof, by enumeration and by search in ellipsoids."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor
from solvers.flips.tabu import Tabu
from solvers.proofs.proof import Proof
from solvers.proofs.semidefinite import Model
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import one_blas_thread
from solvers.warming import CORNER, corner

# Nodes in a million, as a power of 2.
MILLION = 1 << 20
# Share of the time limit for the search of the first states.
FIRST_STATES = 0.1
# Least number of seconds between two reports.
REPORT = 0.05
# Bytes for the rows that take turns, and number of matrices that each of them holds.
MEMORY, ARRAYS = 1e9, 12
# Attributes of a proof and their names in `Task.info`.
INFO = {
    "proved": "proved",
    "lower": "lower_bound",
    "gap": "gap",
    "nodes": "nodes",
    "tolerance": "tolerance",
}


@dataclass(frozen=True, kw_only=True)
class Exact(Solver):
    """Prove optima, row by row; if limits end a proof, give the best state and bound.

    Up to `enumerate` free variables, all states of a row are enumerated. With more, the
    proof is a search for lattice points: a point of the semidefinite relaxation's dual
    puts all better states into an ellipsoid, whose lattice points, in a reduced basis,
    are searched depth first; a partial point is left when some variable can no longer
    reach 0 or 1. Subtrees that turn out large are taken up again with an ellipsoid of
    their own. Searches up to thresholds below the best energy come first: each that
    ends without a state proves a lower bound.

    ``info`` holds for each row: ``proved``, ``lower_bound``, ``gap`` (energy less lower
    bound, over the energy's size), ``nodes`` and ``tolerance``. A proof says that no
    state is better by more than the tolerance, which covers float64 rounding.

    A sweep of the budget is a million nodes of each row.

    Parameters
    ----------
    enumerate
        Largest number of free variables whose states are all enumerated, at most 30.
    largest
        Largest number of free variables for which a proof is tried. A row with more
        gets the state of the tabu search and, up to 1024, its semidefinite bound.
    million_nodes
        Largest number of nodes of each row, in millions.
    sweeps
        Sweeps of the tabu search that finds the first states.
    """

    name: ClassVar[str] = "exact"
    references: ClassVar[tuple[str, ...]] = (
        "Schnorr, Euchner, Lattice Basis Reduction: Improved Practical Algorithms and "
        "Solving Subset Sum Problems, 1994",
        "Damen, El Gamal, Caire, On Maximum-Likelihood Detection and the Search for "
        "the Closest Lattice Point, 2003",
        "Chang, Han, Solving Box-Constrained Integer Least Squares Problems, 2008",
        "Billionnet, Elloumi, Using a Mixed Integer Quadratic Programming Solver for "
        "the Unconstrained Quadratic 0-1 Problem, 2007",
    )

    enumerate: int = 20
    largest: int = 300
    million_nodes: int = 1000
    sweeps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            0 <= self.enumerate <= 30, "enumerate must be a number from 0 to 30"
        )
        self.require(self.largest >= 0, "largest must be at least 0")
        self.require(self.million_nodes >= 1, "million_nodes must be at least 1")
        self.require(self.sweeps >= 1, "sweeps must be at least 1")

    def compile_for(self, qubo: QuboBatch) -> None:
        """Compile by proofs of two small rows: one by search, one by enumeration."""
        for size in (CORNER, 8):
            self.solve(corner(qubo, size), budget=Budget(sweeps=1))

    def search(self, task: Task) -> States:
        """Prove row after row, in turns (see `solvers.proofs.proof.Proof.advance`)."""
        qubo = task.qubo
        states = self._first_states(task)
        energies = qubo.energies(states, task.budget.threads)
        task.monitor.report(energies, states)
        info: dict[str, list[Any]] = {name: [] for name in INFO.values()}
        group = max(1, int(MEMORY / (ARRAYS * 8 * max(qubo.n, 1) ** 2)))
        with one_blas_thread(), ThreadPoolExecutor(task.budget.threads) as p:
            for first in range(0, qubo.rows, group):
                rows = range(first, min(first + group, qubo.rows))
                for proof in self._prove(task, rows, states, energies, p):
                    for name, key in INFO.items():
                        info[key].append(getattr(proof, name))
        task.info.update(info)
        return states

    def _prove(
        self,
        task: Task,
        rows: range,
        states: States,
        energies: Float,
        pool: ThreadPoolExecutor,
    ) -> list[Proof]:
        """Advance the proofs of `rows` in their share of the time; improve `states`."""
        qubo, monitor = task.qubo, task.monitor
        limit = MILLION * task.budget.cap(self.million_nodes)
        later = (qubo.rows - rows.stop) / (qubo.rows - rows.start)
        left = monitor.remaining() * later if task.budget.seconds else 0.0
        proofs = []
        for row in rows:
            x, model = states[row, qubo.free(row)], Model.of_row(qubo, row)
            proofs.append(
                Proof(model, x, self.enumerate, self.largest, limit, monitor.clock)
            )

        def advance(proof: Proof) -> None:
            if monitor.remaining() > left:
                proof.advance()

        def found() -> States:
            present = states.copy()
            for row, proof in zip(rows, proofs, strict=True):
                present[row, qubo.free(row)] = proof.x
            return present

        reported = monitor.elapsed()
        waiting = proofs
        while waiting and monitor.status == "done":
            list((map if task.budget.threads == 1 else pool.map)(advance, waiting))
            waiting = [proof for proof in waiting if not proof.done]
            late = monitor.remaining() <= left
            if late or monitor.elapsed() - reported > REPORT:
                held = energies[rows.start : rows.stop]
                np.minimum(held, [proof.energy[0] for proof in proofs], out=held)
                monitor.report(energies, found)
                reported = monitor.elapsed()
            if late:
                break
        states[:] = found()
        return proofs

    def _first_states(self, task: Task) -> States:
        """States [R, n] of a tabu search from the start: good first upper bounds."""
        remaining = task.monitor.remaining()
        seconds = None if remaining == math.inf else max(FIRST_STATES * remaining, 1e-9)
        return (
            Tabu(num_sweeps=self.sweeps)
            .solve(
                task.qubo,
                seed=task.seed,
                initial=task.start,
                budget=Budget(seconds=seconds, threads=task.budget.threads),
                monitor=Monitor(clock=task.monitor.clock),
            )
            .states
        )
