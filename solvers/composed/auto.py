"""The solver for whatever batch there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.budget import Monitor
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.moves import BUILD_SECONDS, flatness
from solvers.lattice.solver import Lattice
from solvers.proofs.exact import Exact
from solvers.qubo import QuboBatch, States

# Up to so many free variables a row is solved exactly in milliseconds.
EXACT = 28
# From this flatness on tabu may find more than moves along short vectors; beyond the
# second there are no short vectors.
FLAT, FLATTER = 0.45, 0.65
# Rows times squared variables up to which a pool of states costs seconds.
SMALL = 5 * 10**7
# Where building a library takes more than this share of the seconds, there is time for
# single flips alone.
SHORT = 0.3


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Exact search for the smallest rows, tabu for flat spectra, else `lattice`.

    Rows of up to 28 free variables are solved exactly. Where H is indefinite or its
    spectrum is flat (`solvers.lattice.moves.flatness`), single flips are the best moves
    there are, and tabu search makes the most of them; elsewhere, as in most layers,
    short vectors decide. In between both have their turn, tabu from where `lattice`
    ends. With a limit of seconds, a search that ends before it begins again from other
    random numbers, and the best states are kept; with hardly any time there are single
    flips.
    """

    name: ClassVar[str] = "auto"

    polish: str = "pair-flip"

    def search(self, task: Task) -> States:
        """Choose, and search."""
        stages = choose(task.qubo, task.budget.seconds)
        task.info["method"] = " ".join(solver.name for solver in stages)
        if stages == (Exact(),):
            return stages[0].search(task)
        qubo, threads = task.qubo, task.budget.threads
        best, lowest = task.start, qubo.energies(task.start, threads)
        runs, going = 0, True
        while going:
            for left, solver in zip(range(len(stages), 0, -1), stages, strict=True):
                # The first search begins as it likes, the others where that ended.
                start = task.start if solver is stages[0] else best
                found = qubo.pin(solver.search(_share(task, left, start, runs)))
                energies = qubo.energies(found, threads)
                best = np.where((energies < lowest)[:, None], found, best)
                lowest = np.minimum(energies, lowest)
                going = task.monitor.report(lowest)
                if not going:
                    break
            runs += 1
            going &= task.budget.seconds is not None
        task.info["runs"] = runs
        return best


def choose(qubo: QuboBatch, seconds: float | None) -> tuple[Solver, ...]:
    """The solvers for a batch, with the effort that its size allows.

    Parameters
    ----------
    seconds
        That end the search; None where its own limits do.
    """
    if qubo.free().sum(axis=1).max(initial=0) <= EXACT:
        return (Exact(),)
    flat = flatness(qubo.H)
    if flat is None or flat > FLATTER:
        return (Tabu(),)
    if seconds is None and qubo.rows * qubo.n**2 > SMALL:
        return (Lattice(elites=1, num_sweeps=100),)
    if seconds is not None and BUILD_SECONDS["pairs"] * qubo.n > SHORT * seconds:
        return (SimulatedAnnealing(),)
    return (Lattice(), Tabu()) if flat > FLAT else (Lattice(),)


def _share(task: Task, left: int, start: States, runs: int) -> Task:
    """The task for one of the `left` searches that share the time; `runs` renews it."""
    budget = task.budget
    if budget.seconds is not None:
        budget = replace(budget, seconds=max(task.monitor.remaining() / left, 1e-3))
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
