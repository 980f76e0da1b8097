"""`auto`: the solvers that suit a batch, chosen by its size and spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.moves import build_seconds, flatness
from solvers.lattice.solver import Lattice
from solvers.proofs.exact import Exact
from solvers.qubo import QuboBatch, States
from solvers.warming import freest_row

# Rows of at most this many free variables are solved exactly in milliseconds.
EXACT = 28
# Above a flatness of FLAT, tabu may find more than moves along short vectors; above
# FLATTER there are no short vectors.
FLAT, FLATTER = 0.45, 0.65
# Largest rows * n**2 for which keeping a pool of states takes only seconds.
SMALL = 5 * 10**7
# If building a library of moves takes more than this share of the time limit, there is
# only time for single flips.
SHORT = 0.3


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Exact search for the smallest rows, tabu for flat spectra, else `lattice`.

    Rows of up to 28 free variables are solved exactly. Where H is indefinite or its
    spectrum is flat (`solvers.lattice.moves.flatness`), single flips are the best moves
    there are, and tabu search makes the most of them; elsewhere, as in most layers,
    short vectors decide. In between both run in turn, tabu from the best states of
    `lattice`. If the searches end before a limit in seconds, they run again with other
    random numbers, and the best states are kept; with hardly any time, single flips are
    annealed.
    """

    name: ClassVar[str] = "auto"

    polish: str = "pair-flip"

    def compile_for(self, qubo: QuboBatch) -> None:
        """What may be chosen with any seconds, and the polish."""
        row = freest_row(qubo)
        chosen = {
            solver
            for seconds in (None, math.inf, 0.0)
            for solver in choose(qubo, seconds)
        }
        for solver in chosen:
            solver.compile_for(row)
        self.solve(row, budget=Budget(sweeps=1))

    def search(self, task: Task) -> States:
        """Choose the solvers and run them in turn."""
        stages = choose(task.qubo, task.budget.seconds)
        task.info["method"] = " ".join(solver.name for solver in stages)
        if stages == (Exact(),):
            return stages[0].search(task)
        qubo, threads = task.qubo, task.budget.threads
        best, lowest = task.start, qubo.energies(task.start, threads)
        runs, going = 0, True
        while going:
            for searches_left, solver in zip(
                range(len(stages), 0, -1), stages, strict=True
            ):
                # The first solver starts from the task's start, the others from the
                # best states so far.
                start = task.start if solver is stages[0] else best
                states = qubo.pin(
                    solver.search(_share(task, searches_left, start, runs))
                )
                energies = qubo.energies(states, threads)
                best = np.where((energies < lowest)[:, None], states, best)
                lowest = np.minimum(energies, lowest)
                going = task.monitor.report(lowest)
                if not going:
                    break
            runs += 1
            going &= task.budget.seconds is not None
        task.info["runs"] = runs
        return best


def choose(qubo: QuboBatch, seconds: float | None) -> tuple[Solver, ...]:
    """The solvers to run on a batch in turn, with the effort that its size allows.

    Parameters
    ----------
    seconds
        Time limit of the search; None if it ends by its own limits.
    """
    if qubo.free().sum(axis=1).max(initial=0) <= EXACT:
        return (Exact(),)
    flat = flatness(qubo.H)
    if flat is None or flat > FLATTER:
        return (Tabu(),)
    if seconds is None and qubo.rows * qubo.n**2 > SMALL:
        return (Lattice(elites=1, num_sweeps=100),)
    if seconds is not None and build_seconds("pairs", qubo.n) > SHORT * seconds:
        return (SimulatedAnnealing(),)
    return (Lattice(), Tabu()) if flat > FLAT else (Lattice(),)


def _share(task: Task, searches_left: int, start: States, runs: int) -> Task:
    """The task of the next search when `searches_left` share the remaining time.

    `runs`, the number of earlier turns, gives each turn random numbers of its own.
    """
    budget = task.budget
    if budget.seconds is not None:
        budget = replace(
            budget, seconds=max(task.monitor.remaining() / searches_left, 1e-3)
        )
    monitor = Monitor(
        lambda _, best: task.monitor.record(best), clock=task.monitor.clock
    )
    monitor.start(budget, task.monitor.best)
    return replace(
        task,
        start=start,
        warm=task.warm or start is not task.start,
        seed=task.seed + (runs << 40),
        budget=budget,
        monitor=monitor,
        info=task.info if runs == 0 else {},
    )
